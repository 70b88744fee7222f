"""Mistral models served with adapters, compared with the same models with the adapters merged by PEFT."""

from pathlib import Path
from typing import Any

import pytest
from transformers import MistralConfig, MistralForCausalLM

from kaito_runtime.testing.truth import TINY, check_adapters_are_exact, save_random

CONFIGS: dict[str, dict[str, Any]] = {"v0.3": {"sliding_window": None}, "sliding": {"sliding_window": 8}}


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_adapters_give_the_logits_of_the_merged_model(config: dict[str, Any], tmp_path: Path) -> None:
    model = MistralForCausalLM(MistralConfig(**TINY, **config))
    check_adapters_are_exact(save_random(model, tmp_path), ["q_proj", "v_proj"])
