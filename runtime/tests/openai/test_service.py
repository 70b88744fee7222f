"""From requests to jobs and back to counts, over an engine in memory."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fakes import ByteCodec, FakeEngine, write_adapter

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.errors import RequestError
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.openai.replies import Usage
from kaito_runtime.openai.requests import ChatMessage, ChatRequest, CompletionRequest
from kaito_runtime.openai.service import CompletionService


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(most_jobs=4)


@pytest.fixture
def service(engine: Any, tmp_path: Path) -> CompletionService:
    config = ServingConfig.model_validate({"model": {"name": "m"}})
    manager = AdapterManager(engine, config, adapters_dir=tmp_path)
    return CompletionService(engine, ByteCodec(), manager, Metrics(engine, manager))


def test_configuration_that_changes_while_the_prompt_is_read_counts(engine: Any, tmp_path: Path) -> None:
    """What was chosen at the beginning may be unloaded by then."""

    def config(generation: int, strength: float) -> ServingConfig:
        adapters = [{"name": "a", "strength": strength}]
        return ServingConfig.model_validate({"generation": generation, "model": {"name": "m"}, "adapters": adapters})

    class Codec(ByteCodec):
        def encode(self, text: str, *, special: bool = True) -> list[int]:
            manager._change(config=config(2, 0.25))
            return super().encode(text)

    write_adapter(tmp_path / "a")
    manager = AdapterManager(engine, config(1, 4), adapters_dir=tmp_path)
    service = CompletionService(engine, Codec(), manager, Metrics(engine, manager))

    async def generation() -> int:
        await manager.refresh()
        answer = await service.completion(CompletionRequest(model="m", prompt="x"))
        await answer.whole()
        return answer.generation

    assert asyncio.run(generation()) == 2
    assert list(engine.jobs[0].strengths.values()) == [0.25]


def usage(service: CompletionService, request: CompletionRequest | ChatRequest) -> Usage:
    """Answers a request and returns its counts."""

    async def run() -> Usage:
        answer = await (service.chat(request) if isinstance(request, ChatRequest) else service.completion(request))
        await answer.whole()
        return answer.usage

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("prompt", "n", "param", "message"),
    [
        ("a", 5, "n", "n is 5; .* at most 4 .*: set n to at most 4"),
        (["a"] * 5, 1, "prompt", "prompt has 5 entries; .* at most 4 .*: send at most 4 of them at once"),
        (["a"] * 3, 2, "prompt", "3 entries and n is 2, 6 choices in all; .*: send at most 2 of them at once"),
        (["a"] * 2, 4, "prompt", "2 entries and n is 4, 8 choices in all; .*: send at most 1 of them at once"),
        (["a"] * 2, 5, "prompt", "2 entries and n is 5, 10 choices in all; .*: set n to at most 4"),
    ],
)
def test_what_even_an_idle_server_cannot_hold_is_400(
    engine: FakeEngine, service: CompletionService, prompt: Any, n: int, param: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as it:
        usage(service, CompletionRequest(model="m", prompt=prompt, n=n))
    assert (it.value.status, it.value.param, it.value.retry_after_seconds) == (400, param, None)
    assert not engine.jobs


def test_choices_of_a_conversation_are_limited_alike(service: CompletionService) -> None:
    messages = [ChatMessage(role="user", content="hi")]
    with pytest.raises(RequestError, match="n is 5; "):
        usage(service, ChatRequest(model="m", messages=messages, n=5))
    assert usage(service, ChatRequest(model="m", messages=messages, n=4)).completion == 4 * len("hello")


@pytest.mark.parametrize(("prompt", "n"), [("a", 4), (["a"] * 4, 1), (["a"] * 2, 2)])
def test_as_much_as_an_idle_server_can_hold_is_taken(service: CompletionService, prompt: Any, n: int) -> None:
    assert usage(service, CompletionRequest(model="m", prompt=prompt, n=n)).completion == 4 * len("hello")


def test_a_prompt_is_cached_as_far_as_none_of_its_choices_computed_it(
    engine: FakeEngine, service: CompletionService
) -> None:
    engine.cached = [0, 9, 5, 7]
    counts = usage(service, CompletionRequest(model="m", prompt=["ten tokens", "x" * 12], n=2))
    assert (counts.prompt, counts.cached) == (22, 0 + 5)
