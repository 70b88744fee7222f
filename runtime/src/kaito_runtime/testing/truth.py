"""The check for model packages: a model served with adapters gives the logits of the model that they are merged into.

A package's test needs three lines:

    def test_adapters_are_exact(tmp_path):
        folder = save_random(MyModel(MyConfig(**TINY)), tmp_path / "model")
        check_adapters_are_exact(folder, attention=["q_proj", "v_proj"])
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kaito_runtime.testing.harness import running
from kaito_runtime.testing.models import merged, save_adapter, save_tokenizer

__all__ = ["TINY", "check_adapters_are_exact", "save_random"]

TOLERANCE = 1e-4
STEPS = 4
#: Sizes of a tiny model, under the names that most architectures' configurations have for them.
TINY: dict[str, Any] = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 256,
}


def save_random(model: Any, folder: Path) -> Path:
    """Writes a model with random weights that are large enough for adapters to show."""
    torch.manual_seed(7)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def check_adapters_are_exact(folder: Path, attention: Sequence[str]) -> None:
    """Compares served logits with those of a model whose weights have PEFT's own deltas added.

    Args:
        folder: The model, of the sizes in `TINY`.
        attention: Names of the attention's linear layers that adapters target.
    """
    adapters = {
        "attention": save_adapter(folder, folder / "a", seed=1, r=4, lora_alpha=8, target_modules=list(attention)),
        "all": save_adapter(folder, folder / "b", seed=2, r=20, lora_alpha=16, target_modules="all-linear"),
    }
    with running(folder, end_tokens=()) as harness:
        assert harness.loaded.recipe.name == "default"
        live = {name: harness.load(name, path) for name, path in adapters.items()}
        for strengths in ({}, {"attention": 1.0}, {"attention": 0.5, "all": -0.75}):
            prompt = tuple(range(40, 57 + len(strengths)))  # a new prompt each time, since logits are kept by prompt
            tokens = harness.answer(prompt, {live[name]: value for name, value in strengths.items()}, STEPS)
            served = torch.stack(harness.logits[prompt])
            expected = _logits(folder, {adapters[name]: value for name, value in strengths.items()}, prompt, tokens)
            assert served.shape == expected.shape == (STEPS, TINY["vocab_size"])
            assert (served - expected).abs().max() <= TOLERANCE
            if strengths:  # the adapters do something
                assert (served - _logits(folder, {}, prompt, tokens)).abs().max() > 100 * TOLERANCE


def _logits(folder: Path, strengths: dict[Path, float], prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = merged(folder, strengths)(torch.tensor([[*prompt, *tokens[:-1]]])).logits
    return logits[0, len(prompt) - 1 :]
