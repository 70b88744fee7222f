"""What the official client sees of a live server with a tiny model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from live import Live, serving

from kaito_core.api.serving import ServingConfig

MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def live(tiny_llama: Path, tiny_adapters: Path) -> Iterator[Live]:
    config = ServingConfig.model_validate(
        {
            "generation": 3,
            "model": {"name": "tiny"},
            "adapters": [{"name": "one", "strength": "0.8"}, {"name": "two", "strength": 0.5}],
            "blends": [{"name": "half", "strengths": {"one": 0.5, "two": -0.5}}],
        }
    )
    with serving(tiny_llama, config, adapters_dir=tiny_adapters) as live:
        yield live


def text(client: openai.OpenAI, model: str, adapters: Any = None) -> str:
    extra = {} if adapters is None else {"adapters": adapters}
    answer = client.completions.create(model=model, prompt="hello", max_tokens=12, temperature=0, extra_body=extra)
    return answer.choices[0].text


def test_models_are_listed_with_parent_root_and_strength(client: openai.OpenAI) -> None:
    cards = {card.id: card.model_dump() for card in client.models.list()}
    assert list(cards) == ["tiny", "base", "one", "two", "half"]
    assert {(card["root"], card["parent"]) for name, card in cards.items() if name != "base"} == {("tiny", "base")}
    assert cards["base"]["parent"] is None
    assert cards["one"]["strength"] == 0.8
    assert cards["half"]["adapters"] == [{"name": "one", "strength": 0.5}, {"name": "two", "strength": -0.5}]
    assert client.models.retrieve("two").model_dump()["strength"] == 0.5


def test_chat_answers_with_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, max_completion_tokens=5, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len("user: hello\nassistant: "), 5)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0, "nothing is kept unasked"


def test_stream_has_the_text_of_the_whole_answer_and_the_usage(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == (
        whole.choices[0].message.content
    )
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len(chunks) > 5


def test_stream_has_no_usage_unasked(client: openai.OpenAI) -> None:
    chunks = list(client.completions.create(model="tiny", prompt="a", max_tokens=3, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_request_strengths_replace_those_of_the_model_id(client: openai.OpenAI) -> None:
    base = text(client, "base")
    assert text(client, "tiny", []) == base
    assert text(client, "half", []) == base
    assert text(client, "base", [{"name": "one", "strength": "0.8"}, {"name": "two", "strength": 0.5}]) == (
        text(client, "tiny")
    )
    assert text(client, "two", [{"name": "one"}]) == text(client, "one")
    assert text(client, "tiny", [{"name": "one", "strength": 0}]) == base
    assert len({text(client, model) for model in ("base", "tiny", "one", "two", "half")}) == 5


def test_choices_come_separately_and_seeds_repeat_them(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "prompt": "a", "max_tokens": 16, "n": 3}
    first = [choice.text for choice in client.completions.create(**asked, seed=11).choices]
    again = [choice.text for choice in client.completions.create(**asked, seed=11).choices]
    other = [choice.text for choice in client.completions.create(**asked, seed=12).choices]
    assert first == again
    assert len(set(first)) == 3
    assert first != other


def test_streamed_choices_keep_their_index(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 8, "n": 3, "seed": 5}
    whole = client.chat.completions.create(**asked)
    streamed = {0: "", 1: "", 2: ""}
    for chunk in client.chat.completions.create(**asked, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(streamed.values()) == [choice.message.content for choice in whole.choices]


def test_stop_string_ends_the_text_before_it(client: openai.OpenAI) -> None:
    whole = text(client, "tiny")
    stop = whole[4:6]
    answer = client.completions.create(
        model="tiny", prompt="hello", max_tokens=12, temperature=0, stop=["\x00never", stop]
    )
    assert answer.choices[0].text == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def test_chat_logprobs_are_those_of_the_chosen_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert len(logprobs.content) == 4
    for entry in logprobs.content:
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs) <= 0
        assert len(entry.top_logprobs) == 3


def test_completion_logprobs_have_offsets(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="a", max_tokens=4, temperature=0, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None and logprobs.top_logprobs is not None
    assert len(logprobs.tokens) == len(logprobs.token_logprobs or ()) == len(logprobs.text_offset or ()) == 4
    assert all(len(top) == 2 for top in logprobs.top_logprobs)


def test_several_prompts_are_answered_in_order(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "max_tokens": 6, "temperature": 0}
    both = client.completions.create(prompt=["one", "two"], **asked)
    single = [client.completions.create(prompt=prompt, **asked).choices[0].text for prompt in ("one", "two")]
    assert [choice.text for choice in both.choices] == single
    tokens = client.completions.create(prompt=[[1, 2], [3]], **asked, echo=True)
    assert [choice.index for choice in tokens.choices] == [0, 1]


def test_logit_bias_forces_a_token(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="a", max_tokens=3, temperature=0, logit_bias={"70": 100})
    assert len(set(answer.choices[0].text)) == 1


def test_unknown_model_is_404_and_never_the_base(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="unknown model 'missing', known: tiny, base, one, two, half") as it:
        client.chat.completions.create(model="missing", messages=MESSAGES)
    assert it.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("missing")


@pytest.mark.parametrize("strength", ["abc", "nan", 11, "1e999", None, True, [1]])
def test_bad_strength_is_400_and_names_the_field(client: openai.OpenAI, strength: Any) -> None:
    with pytest.raises(openai.BadRequestError, match=r"adapters\[1\].strength must be") as it:
        text(client, "tiny", [{"name": "one"}, {"name": "two", "strength": strength}])
    assert it.value.param == "adapters[1].strength"


def test_unknown_adapter_is_404_with_the_known_names(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="unknown adapter 'three', known: one, two"):
        text(client, "tiny", [{"name": "three"}])


def test_prompt_beyond_the_context_is_400_with_both_lengths(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"maximum context length is 256 tokens.* 300 ") as it:
        client.completions.create(model="tiny", prompt="x" * 300)
    assert it.value.code == "context_length_exceeded"


def test_more_answers_than_the_queue_can_ever_hold_are_400_not_429(client: openai.OpenAI, live: Live) -> None:
    most = live.engine.most_jobs
    asked: Any = {"model": "tiny", "max_tokens": 1}
    with pytest.raises(openai.BadRequestError, match=f"prompt has {most + 1} entries; .* at most {most} ") as it:
        client.completions.create(prompt=["a"] * (most + 1), **asked)
    assert it.value.param == "prompt"
    with pytest.raises(openai.BadRequestError, match=f"n is 2, {most + 2} choices in all; .* {most // 2} of them"):
        client.completions.create(prompt=["a"] * (most // 2 + 1), n=2, **asked)
    assert len(client.completions.create(prompt=["a"] * most, **asked).choices) == most


def test_answer_ends_with_the_context(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt="x" * 250, max_tokens=10**9, temperature=0, logit_bias={"256": -100}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6


def test_fields_of_other_servers_are_known_and_others_are_refused(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 1, "user": "me"}
    client.chat.completions.create(**asked, extra_body={"guided_json": {}, "best_of": 1, "priority": 3})
    with pytest.raises(openai.BadRequestError, match="did you mean 'temperature'") as it:
        client.chat.completions.create(**asked, extra_body={"temprature": 0})
    assert (it.value.code, it.value.param) == ("unknown_parameter", "temprature")
