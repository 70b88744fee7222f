"""The life of a server: when it is ready, when it is not, and how it comes back."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from live import serving, until

from kaito_core.api.serving import ServedModel, ServingConfig
from kaito_runtime import serve as server
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.engine import torch_engine
from kaito_runtime.engine.protocol import Job
from kaito_runtime.errors import RequestError, ServeError
from kaito_runtime.http import health
from kaito_runtime.lora.bank import Bank
from kaito_runtime.options import ServeOptions
from kaito_runtime.serve import first_answer, serve

CONFIG = ServingConfig(model=ServedModel(name="tiny"))
BODY = {"model": "tiny", "prompt": "a", "max_tokens": 2}


def test_failures_that_repeat_turn_readiness_off_until_the_model_works_again(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_SELF_TEST_SECONDS", 0.2)
    monkeypatch.setattr(health, "_SELF_TESTS_THAT_COUNT", 10**6)
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


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "there is not enough memory: MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory."), "there is not enough memory: OutOfMemoryError: CUDA out of"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
    ],
)
def test_adapter_whose_load_raises_anything_is_failed_and_the_rest_is_served(
    tiny_llama: Path, tiny_adapters: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    load = Bank.load

    def load_or_raise(bank: Bank, weights: Any) -> Any:
        if weights.name == "one":
            raise error
        return load(bank, weights)

    monkeypatch.setattr(Bank, "load", load_or_raise)
    config = ServingConfig.model_validate({"model": {"name": "tiny"}, "adapters": [{"name": "one"}, {"name": "two"}]})
    with serving(tiny_llama, config, adapters_dir=tiny_adapters) as live:
        assert live.get("/readyz").status_code == 200
        one, two = live.get("/v1/adapters").json()["data"]
        assert (one["state"], two["state"]) == ("Failed", "Ready")
        assert message in one["message"]
        assert live.post("/v1/completions", BODY | {"model": "two"}).status_code == 200


def end_of(model: Path) -> str:
    """Returns why a server ended that nobody had asked to."""
    with pytest.raises(ServeError) as ended:
        serve(CONFIG, ServeOptions(model=model, port=0, cache_gib=0.02))
    return str(ended.value)


def test_background_work_that_ends_ends_the_process_and_says_why(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(AdapterManager, "refresh", Mock(side_effect=ZeroDivisionError("a bug")))
    reason = "the background task that loads adapters and tests the model has ended: ZeroDivisionError: a bug"
    assert end_of(tiny_llama) == reason
    assert f"ending: {reason}" in caplog.text
    assert "Traceback" in caplog.text


def test_model_whose_self_test_goes_on_failing_ends_the_process(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_SELF_TEST_SECONDS", 0.01)
    monkeypatch.setattr(server, "first_answer", Mock(side_effect=RequestError("the model failed: a bug", status=500)))
    assert end_of(tiny_llama) == "the last 5 self-tests of the model failed: the model failed: a bug"


def test_self_test_that_finds_the_queue_full_says_nothing_of_the_model(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = RequestError("the server is full", status=429, code="rate_limit_exceeded")
    monkeypatch.setattr(server, "_SELF_TEST_SECONDS", 0.01)
    test = Mock(side_effect=[full] * 20 + [None])
    monkeypatch.setattr(server, "first_answer", lambda engine: first_answer(engine) if test() is None else None)
    with serving(tiny_llama, CONFIG) as live:
        assert live.server.health.failed_self_tests == []
        assert live.get("/livez").status_code == 200
    assert test.call_count >= 21


def test_gpu_that_is_lost_ends_the_process(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose(engine: Any) -> None:
        monkeypatch.setattr(torch_engine, "why_lost", lambda device: "CUDA error: an illegal memory access")
        engine._model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
        async for _ in engine.submit(Job([0], 2)):
            pass

    monkeypatch.setattr(server, "first_answer", lose)
    assert end_of(tiny_llama) == "cpu no longer works: CUDA error: an illegal memory access"
