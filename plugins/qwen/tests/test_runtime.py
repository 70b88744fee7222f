"""Qwen models served with adapters, compared with the same models with the adapters merged by PEFT."""

from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from kaito_runtime.testing.truth import TINY, check_adapters_are_exact, save_random

CONFIGS: dict[str, dict[str, Any]] = {"untied": {"tie_word_embeddings": False}, "tied": {"tie_word_embeddings": True}}


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_adapters_give_the_logits_of_the_merged_model(config: dict[str, Any], tmp_path: Path) -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**TINY, **config))
    check_adapters_are_exact(save_random(model, tmp_path), ["q_proj", "v_proj"])


@pytest.mark.slow
def test_adapters_of_qwen_3_give_the_logits_of_the_merged_model(tmp_path: Path) -> None:
    model = Qwen3ForCausalLM(Qwen3Config(**TINY, head_dim=16))
    check_adapters_are_exact(save_random(model, tmp_path), ["q_proj", "v_proj"])
