"""From options to a model and its limits."""

from pathlib import Path

import pytest

from kaito_core.api.serving import ServedModel, ServingConfig
from kaito_runtime.build import build_engine, build_model
from kaito_runtime.errors import ModelLoadError
from kaito_runtime.lora.bank import Bank
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


def test_more_memory_than_there_is_is_refused_with_the_arithmetic_and_the_flag(tiny_llama: Path) -> None:
    def refusal(**options: object) -> str:
        with pytest.raises(ModelLoadError) as refused:
            build_engine(ServingConfig(model=ServedModel(name="tiny")), ServeOptions(model=tiny_llama, **options))
        return str(refused.value)

    cache = refusal(cache_gib=2.0**30, batch_requests=2**40)
    assert "set --cache-gib lower by" in cache and "keys and values" in cache
    assert "set --adapter-memory lower" in refusal(adapter_bytes=2**60)
    small = refusal(adapter_bytes=2**20, max_adapter_rank=4096)
    assert "an adapter of rank 4096 needs 256" in small and "--adapter-memory of 1 MiB" in small


def test_pools_are_what_configuration_and_options_say(tiny_llama: Path) -> None:
    def bank(options: ServeOptions, **model: object) -> Bank:
        built = build_model(ServingConfig(model=ServedModel(name="tiny", **model)), options, None)
        assert built.lora.bank.limit * built.lora.page_bytes <= 2**20
        return built.lora.bank

    page = build_model(ServingConfig(model=ServedModel(name="tiny")), ServeOptions(model=tiny_llama), None).lora
    configured = bank(ServeOptions(model=tiny_llama), adapter_memory="1Mi", max_adapter_rank=8)
    assert (configured.limit, configured.max_rank) == (2**20 // page.page_bytes, 8)
    asked = bank(ServeOptions(model=tiny_llama, adapter_bytes=2**19, max_adapter_rank=9), adapter_memory="1Mi")
    assert (asked.limit, asked.max_rank) == (2**19 // page.page_bytes, 9)
