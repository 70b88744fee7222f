"""Fixtures that pytest finds by itself wherever kaito-runtime is installed. Only using one imports torch."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers, and a tokenizer with one token per byte."""
    from kaito_runtime.testing.models import save_model

    return save_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def tiny_adapters(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two adapters for it: "one" (rank 4, attention) and "two" (rank 20, rsLoRA, all linear layers)."""
    from kaito_runtime.testing.models import save_adapter

    folder = tmp_path_factory.mktemp("adapters")
    save_adapter(tiny_llama, folder / "one", seed=1, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    save_adapter(tiny_llama, folder / "two", seed=2, r=20, lora_alpha=16, use_rslora=True, target_modules="all-linear")
    return folder
