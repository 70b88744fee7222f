"""Numerics in Triton's interpreter: naming this folder alone makes the process an interpreting one.

Triton reads the variable when a kernel is decorated, which is before any fixture could set it.
"""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    paths = [(Path(config.invocation_params.dir) / arg.split("::")[0]).resolve() for arg in config.args]
    if paths and all(path.is_relative_to(HERE) for path in paths):
        os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)
