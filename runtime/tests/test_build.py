"""From options to a model and its limits."""

from pathlib import Path

import pytest
import torch

from kaito_core.api.serving import ServedModel, ServingConfig
from kaito_runtime import build
from kaito_runtime.build import build_engine
from kaito_runtime.errors import ModelLoadError
from kaito_runtime.options import ServeOptions


def test_context_is_what_weights_configuration_and_cache_allow(tiny_llama: Path) -> None:
    def context(wanted: int | None, cache_gib: float) -> int:
        config = ServingConfig(model=ServedModel(name="tiny", context_length=wanted))
        return build_engine(config, ServeOptions(model=tiny_llama, cache_gib=cache_gib))[0].context_length

    tokens_per_gib = (1 << 30) // 256  # two layers of keys and values of two heads of width 8 in float32
    assert context(None, 0.01) == 256
    assert context(100, 0.01) == 100
    assert context(10_000, 0.01) == 256
    assert context(None, 64 / tokens_per_gib) == 64


def test_cache_is_bounded_on_a_cpu_and_follows_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 200))
    assert build._default_cache_bytes(torch.device("cuda")) == 85
    assert build._default_cache_bytes(torch.device("cpu")) == 1 << 30


def test_cache_beyond_all_memory_is_refused_at_the_start(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "cache_bytes_per_token", lambda model: 1)
    options = ServeOptions(model=tiny_llama, cache_gib=2.0**40, batch_requests=2**40)
    with pytest.raises(ModelLoadError, match="not enough memory for a key-value cache of"):
        build_engine(ServingConfig(model=ServedModel(name="tiny")), options)
