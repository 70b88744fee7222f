"""Fixtures of the LoRA tests."""

from typing import Any

import pytest
import torch
from lora_models import TARGETS, llama, target_paths


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 97, (2, 7), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def model() -> Any:
    return llama()


@pytest.fixture
def paths(model: Any) -> list[str]:
    return target_paths(model, TARGETS[llama])
