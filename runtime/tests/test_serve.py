"""The life of a server: when it is ready, when it is not, and how it comes back."""

from pathlib import Path

import pytest
import torch
from live import serving, until

from kaito_core.api.serving import ServedModel, ServingConfig
from kaito_runtime import build as parts
from kaito_runtime import serve as server
from kaito_runtime.errors import ServeError
from kaito_runtime.options import ServeOptions
from kaito_runtime.serve import bind, build_engine

CONFIG = ServingConfig(model=ServedModel(name="tiny"))
BODY = {"model": "tiny", "prompt": "a", "max_tokens": 2}


def test_failures_that_repeat_turn_readiness_off_until_the_model_works_again(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_SELF_TEST_SECONDS", 0.2)
    with serving(tiny_llama, CONFIG) as live:
        broken = live.engine._model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
        statuses = [live.post("/v1/completions", BODY).status_code for _ in range(2)]
        assert statuses == [500, 500]
        assert live.get("/readyz").status_code == 503
        assert live.get("/livez").status_code == 200
        assert 'kaito_forward_passes_total{outcome="failure"} 0.0' not in live.get("/metrics").text
        broken.remove()
        until(lambda: live.get("/readyz").status_code == 200, "ready again without any request")
        assert live.post("/v1/completions", BODY).status_code == 200


def test_context_is_what_weights_configuration_and_cache_allow(tiny_llama: Path) -> None:
    def context(wanted: int | None, cache_gib: float) -> int:
        config = ServingConfig(model=ServedModel(name="tiny", context_length=wanted))
        return build_engine(config, ServeOptions(model=tiny_llama, cache_gib=cache_gib))[0].context_length

    tokens_per_gib = (1 << 30) // 256  # two layers of keys and values of two heads of width 8 in float32
    assert context(None, 0.01) == 256
    assert context(100, 0.01) == 100
    assert context(10_000, 0.01) == 256
    assert context(None, 64 / tokens_per_gib) == 64


def test_address_that_cannot_be_had_is_named() -> None:
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            bind("127.0.0.1", port)
    with pytest.raises(ServeError, match=r"cannot listen on 203.0.113.1:80: "):
        bind("203.0.113.1", 80)


def test_cache_is_bounded_on_a_cpu_and_follows_the_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 200))
    assert parts._default_cache_bytes(torch.device("cuda")) == 85
    assert parts._default_cache_bytes(torch.device("cpu")) == 1 << 30
