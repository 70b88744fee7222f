"""Phi models served with adapters, compared with the same models with the adapters merged by PEFT."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM, PhiConfig, PhiForCausalLM

from kaito_runtime.testing.truth import TINY, check_adapters_are_exact, save_random

ORIGINAL = 64  # most tokens for which the short rotary factors are used
CONFIGS: dict[str, dict[str, Any]] = {
    "4k": {"sliding_window": 8},
    "128k": {
        "original_max_position_embeddings": ORIGINAL,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": ORIGINAL,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
        },
    },
    "4-mini": {"tie_word_embeddings": True, "partial_rotary_factor": 0.75},
}


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_adapters_give_the_logits_of_the_merged_model(config: dict[str, Any], tmp_path: Path) -> None:
    model = Phi3ForCausalLM(Phi3Config(**TINY, **config))
    check_adapters_are_exact(save_random(model, tmp_path), ["qkv_proj"])


@pytest.mark.slow
def test_adapters_of_phi_2_give_the_logits_of_the_merged_model(tmp_path: Path) -> None:
    model = PhiForCausalLM(PhiConfig(**TINY, partial_rotary_factor=0.5))
    check_adapters_are_exact(save_random(model, tmp_path), ["q_proj", "v_proj", "dense"])


def test_why_contexts_are_short() -> None:
    """If this fails, transformers keeps the requests of a batch apart, and the presets can have long contexts."""
    rotary = Phi3ForCausalLM(Phi3Config(**TINY, **CONFIGS["128k"])).model.rotary_emb
    positions, states = torch.arange(5).unsqueeze(0), torch.zeros(1, 10, TINY["hidden_size"])
    alone = rotary(states, positions)[0]
    beside_a_longer_one = rotary(states, torch.cat([positions, positions + ORIGINAL], dim=1))[0]
    assert not torch.equal(alone, beside_a_longer_one[:, :5])
