"""From requests to jobs and back to counts, over an engine in memory."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fakes import ByteCodec, FakeEngine

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.manager import Residents
from kaito_runtime.errors import RequestError
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.openai.requests import ChatMessage, ChatRequest, CompletionRequest, Usage
from kaito_runtime.openai.service import Answers


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(most_jobs=4)


@pytest.fixture
def answers(engine: Any, tmp_path: Path) -> Answers:
    config = ServingConfig.model_validate({"model": {"name": "m"}})
    residents = Residents(engine, config, adapters_dir=tmp_path)
    return Answers(engine, ByteCodec(), residents, Metrics(engine, residents))


def usage(answers: Answers, request: CompletionRequest | ChatRequest) -> Usage:
    """Answers a request and returns its counts."""

    async def run() -> Usage:
        start = answers.chat(request) if isinstance(request, ChatRequest) else answers.completion(request)
        answer = await start
        await answer.whole()
        return answer.usage

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("prompt", "n", "param", "message"),
    [
        ("a", 5, "n", "n is 5; .* at most 4 .*: set n to at most 4"),
        (["a"] * 5, 1, "prompt", "prompt has 5 entries; .* at most 4 .*: send at most 4 of them at once"),
        (["a"] * 3, 2, "prompt", "3 entries and n is 2, which makes 6 answers; .*: send at most 2 of them at once"),
        (["a"] * 2, 4, "prompt", "2 entries and n is 4, which makes 8 answers; .*: send at most 1 of them at once"),
        (["a"] * 2, 5, "prompt", "2 entries and n is 5, which makes 10 answers; .*: set n to at most 4"),
    ],
)
def test_what_even_an_idle_server_cannot_hold_is_400(
    engine: FakeEngine, answers: Answers, prompt: Any, n: int, param: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message) as it:
        usage(answers, CompletionRequest(model="m", prompt=prompt, n=n))
    assert (it.value.status, it.value.param, it.value.retry_after_seconds) == (400, param, None)
    assert not engine.jobs


def test_choices_of_a_conversation_are_limited_alike(answers: Answers) -> None:
    messages = [ChatMessage(role="user", content="hi")]
    with pytest.raises(RequestError, match="n is 5; "):
        usage(answers, ChatRequest(model="m", messages=messages, n=5))
    assert usage(answers, ChatRequest(model="m", messages=messages, n=4)).completion == 4 * len("hello")


@pytest.mark.parametrize(("prompt", "n"), [("a", 4), (["a"] * 4, 1), (["a"] * 2, 2)])
def test_as_much_as_an_idle_server_can_hold_is_taken(answers: Answers, prompt: Any, n: int) -> None:
    assert usage(answers, CompletionRequest(model="m", prompt=prompt, n=n)).completion == 4 * len("hello")


def test_a_prompt_is_cached_as_far_as_none_of_its_choices_computed_it(engine: FakeEngine, answers: Answers) -> None:
    engine.cached = [0, 9, 5, 7]
    counts = usage(answers, CompletionRequest(model="m", prompt=["ten tokens", "x" * 12], n=2))
    assert (counts.prompt, counts.cached) == (22, 0 + 5)
