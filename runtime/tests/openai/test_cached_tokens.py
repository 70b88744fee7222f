"""What the official client reads about prompts that were not computed again, and that it is true."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from live import Live, serving

from kaito_core.api.serving import ServingConfig

LENGTH = 80  # one token a byte: two whole pages of 32, and a rest
SHARED = 64


@pytest.fixture(scope="module")
def live(tiny_llama: Path, tiny_adapters: Path) -> Iterator[Live]:
    config = ServingConfig.model_validate({"model": {"name": "tiny"}, "adapters": [{"name": "one"}, {"name": "two"}]})
    with serving(tiny_llama, config, adapters_dir=tiny_adapters, reuse_prefixes=True) as live:
        yield live


@pytest.fixture
def prompt(request: pytest.FixtureRequest) -> str:
    """A prompt that no other test has asked."""
    return (request.node.name * LENGTH)[:LENGTH]


def ask(client: openai.OpenAI, prompt: str | list[str], adapters: Any = (), **asked: Any) -> Any:
    extra = {"adapters": [{"name": name, "strength": strength} for name, strength in adapters]}
    # Without an end token, which a draw may give at once, every answer has two tokens.
    asked["logit_bias"] = {"256": -100}
    return client.completions.create(model="base", prompt=prompt, max_tokens=2, extra_body=extra, **asked)


def cached(client: openai.OpenAI, prompt: str | list[str], adapters: Any = (), **asked: Any) -> int:
    return int(ask(client, prompt, adapters, **asked).usage.prompt_tokens_details.cached_tokens)


def found(live: Live) -> int:
    """Returns what the server has counted in its cache."""
    line = re.search(r"^vllm:prefix_cache_hits_total\S* (\S+)", live.get("/metrics").text, re.M)
    assert line is not None
    return int(float(line[1]))


def test_whole_pages_of_the_same_prompt_are_reported(client: openai.OpenAI, live: Live, prompt: str) -> None:
    before = found(live)
    assert [cached(client, prompt) for _ in range(3)] == [0, SHARED, SHARED]
    assert cached(client, prompt[:32] + "!" * 48) == 32
    assert cached(client, "!" + prompt[1:]) == 0
    assert found(live) - before == 2 * SHARED + 32, "as many as the cache says it found"


def test_nothing_is_shared_across_adapters_or_strengths(client: openai.OpenAI, live: Live, prompt: str) -> None:
    mixes: list[Any] = [[], [("one", 1.0)], [("one", 0.5)], [("two", 1.0)], [("one", 1.0), ("two", 0.5)]]
    before = found(live)
    assert [cached(client, prompt, mix) for mix in mixes] == [0] * len(mixes)
    assert found(live) == before
    assert [cached(client, prompt, mix) for mix in mixes] == [SHARED] * len(mixes)
    assert cached(client, prompt, [("two", 0.5), ("one", 1.0)]) == SHARED, "the order says nothing"
    assert cached(client, prompt, [("one", 0.0)]) == SHARED, "at strength 0 it is the base model"


def test_streams_report_what_whole_answers_do(client: openai.OpenAI, prompt: str) -> None:
    streamed: Any = {"stream": True, "stream_options": {"include_usage": True}}
    counts = [list(ask(client, prompt, **streamed))[-1].usage for _ in range(2)]
    assert [usage.prompt_tokens_details.cached_tokens for usage in counts] == [0, SHARED]
    assert counts[1] == ask(client, prompt).usage


def test_conversations_report_it_too(client: openai.OpenAI, prompt: str) -> None:
    asked: Any = {"model": "one", "messages": [{"role": "user", "content": prompt}], "max_tokens": 2}
    first = client.chat.completions.create(**asked).usage
    *_, last = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    details = [usage.prompt_tokens_details for usage in (first, last.usage) if usage is not None]
    whole_pages = len(f"user: {prompt}\nassistant: ") // 32 * 32
    assert [each.cached_tokens for each in details if each is not None] == [0, whole_pages]


def test_a_prompt_counts_once_however_many_choices_it_has(client: openai.OpenAI, prompt: str) -> None:
    assert cached(client, prompt, n=3) == 0, "one of them computed it"
    answer = ask(client, prompt, n=3)
    assert (answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (LENGTH, SHARED)
    several = ask(client, [prompt, "!" * LENGTH, prompt], n=2)
    assert (several.usage.prompt_tokens, several.usage.prompt_tokens_details.cached_tokens) == (3 * LENGTH, 2 * SHARED)
