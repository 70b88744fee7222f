"""Field by field, what the official client sees of a live server: the same whole, streamed, and in a busy batch."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from kaito_runtime.openai.vocabulary import _byte_letters

MESSAGES: Any = [{"role": "user", "content": "hello"}]
NO_END = {"256": -100}  # answers reach their length


def whole(client: openai.OpenAI, kind: str, **asked: Any) -> Any:
    if kind == "chat":
        return client.chat.completions.create(model="tiny", messages=MESSAGES, **asked)
    return client.completions.create(model="tiny", prompt="hello", **asked)


def texts(answer: Any) -> list[str]:
    return [getattr(choice, "text", None) or choice.message.content for choice in answer.choices]


class Streamed:
    """What a stream adds up to, by choice."""

    def __init__(self, chunks: Any) -> None:
        self.texts: dict[int, str] = {}
        self.finish: dict[int, str] = {}
        self.logprobs: dict[int, list[Any]] = {}
        self.usage: Any = None
        for chunk in chunks:
            self.usage = chunk.usage or self.usage
            for choice in chunk.choices:
                text = choice.text if hasattr(choice, "text") else choice.delta.content
                self.texts[choice.index] = self.texts.get(choice.index, "") + (text or "")
                if choice.logprobs is not None:
                    self.logprobs.setdefault(choice.index, []).append(choice.logprobs)
                if choice.finish_reason:
                    assert choice.index not in self.finish
                    self.finish[choice.index] = choice.finish_reason


FIELDS: dict[str, dict[str, Any]] = {
    "choices": {"n": 4, "temperature": 1.3},
    "top_p": {"top_p": 0.5},
    "top_k": {"extra_body": {"top_k": 3}},
    "min_p": {"extra_body": {"min_p": 0.2}},
    "presence": {"temperature": 0, "presence_penalty": 2.0},
    "frequency": {"temperature": 0, "frequency_penalty": 2.0},
    "bias": {"temperature": 0, "logit_bias": {**NO_END, "70": 5, "71": -5}},
    "stop": {"temperature": 0, "stop": "e"},
    "stops": {"n": 2, "stop": ["ab", "\n", "é"]},
    "cut": {"max_tokens": 1},
    "many at once": {"n": 3, "seed": 0, "top_p": 0.9, "stop": ["x"], "frequency_penalty": 0.5},
}


@pytest.mark.parametrize("kind", ["chat", "text"])
@pytest.mark.parametrize("field", FIELDS)
def test_stream_adds_up_to_the_answer(client: openai.OpenAI, kind: str, field: str) -> None:
    asked = {"seed": 3, "max_tokens": 24, **FIELDS[field]}
    answer = whole(client, kind, **asked)
    streamed = Streamed(whole(client, kind, **asked, stream=True, stream_options={"include_usage": True}))
    assert list(dict(sorted(streamed.texts.items())).values()) == texts(answer)
    assert [streamed.finish[choice.index] for choice in answer.choices] == [
        choice.finish_reason for choice in answer.choices
    ]
    assert streamed.usage == answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_fields_change_the_answer(client: openai.OpenAI) -> None:
    """Else the test above would pass for fields that nobody reads."""

    def text(**asked: Any) -> str:
        return texts(whole(client, "text", **{"seed": 3, "max_tokens": 24, "logit_bias": NO_END, **asked}))[0]

    plain, greedy = text(), text(temperature=0)
    names = ("top_p", "top_k", "min_p")
    assert all(text(**FIELDS[name]) != plain for name in names)
    assert all(text(**FIELDS[name]) != greedy for name in ("presence", "frequency", "bias"))
    assert text(temperature=0, top_p=0.1) == greedy == text(temperature=0, seed=99)


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_seed_gives_the_same_in_a_busy_batch_as_alone(client: openai.OpenAI, kind: str) -> None:
    def ask(seed: int) -> list[str]:
        adapters = [[], [{"name": "one"}], [{"name": "two", "strength": -1.5}]][seed % 3]
        extra = {"adapters": adapters}
        return texts(whole(client, kind, seed=seed, n=2, max_tokens=30, temperature=1.2, extra_body=extra))

    alone = [ask(seed) for seed in range(12)]
    with ThreadPoolExecutor(12) as pool:
        busy = list(pool.map(ask, reversed(range(12))))
    assert busy[::-1] == alone
    assert len({text for pair in alone for text in pair}) > 12


def test_no_seed_means_another_answer(client: openai.OpenAI) -> None:
    asked: Any = {"max_tokens": 30, "temperature": 1.5, "logit_bias": NO_END}
    assert len({texts(whole(client, "text", **asked))[0] for _ in range(4)}) > 1


@pytest.mark.parametrize("stream", [False, True])
def test_stop_string_may_lie_across_tokens_and_the_first_one_in_the_text_counts(
    client: openai.OpenAI, stream: bool
) -> None:
    asked: Any = {"temperature": 0, "max_tokens": 24, "logit_bias": NO_END}
    full = texts(whole(client, "text", **asked))[0]
    late, early = full[9:12], full[3:7]  # one byte is one token in this model
    cut = min(full.index(late), full.index(early))
    answer = whole(client, "text", **asked, stop=[late, "\x00", early], stream=stream)
    found = Streamed(answer).texts[0] if stream else texts(answer)[0]
    assert found == full[:cut]


def test_chat_logprobs_are_the_same_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = {"temperature": 0, "max_tokens": 6, "logprobs": True, "top_logprobs": 4, "logit_bias": NO_END}
    content = whole(client, "chat", **asked).choices[0].logprobs.content
    streamed = Streamed(whole(client, "chat", **asked, stream=True)).logprobs[0]
    assert [entry for part in streamed for entry in part.content or ()] == content
    assert len(content) == 6
    for entry in content:
        assert [len(entry.top_logprobs), entry.top_logprobs[0].logprob >= entry.logprob] == [4, True]
        ranked = [top.logprob for top in entry.top_logprobs]
        assert ranked == sorted(ranked, reverse=True)
        part = entry.token.startswith("token_id:")  # of a character, as each byte above 127 is here
        assert len(entry.bytes) == 1 and (entry.bytes[0] > 127 if part else chr(entry.bytes[0]) == entry.token)
    without = whole(client, "chat", **{**asked, "top_logprobs": None}).choices[0].logprobs.content
    assert [entry.logprob for entry in without] == [entry.logprob for entry in content]
    assert all(entry.top_logprobs == [] for entry in without)


def test_completion_logprobs_are_the_same_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = {"temperature": 0, "max_tokens": 6, "logprobs": 3, "logit_bias": NO_END}
    answer = whole(client, "text", **asked).choices[0]
    parts = Streamed(whole(client, "text", **asked, stream=True)).logprobs[0]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [entry for part in parts for entry in getattr(part, name)] == getattr(answer.logprobs, name)
    assert answer.logprobs.text_offset[0] == 0
    assert all(len(top) <= 3 for top in answer.logprobs.top_logprobs)
    assert whole(client, "text", temperature=0, max_tokens=2).choices[0].logprobs is None
    bare = whole(client, "text", **{**asked, "logprobs": 0}).choices[0].logprobs
    assert bare.token_logprobs == answer.logprobs.token_logprobs


BOUNDS: list[dict[str, Any]] = [
    {"temperature": 5e-324},
    {"temperature": 1e-40},
    {"temperature": 1e-5},
    {"temperature": 100},
    {"top_p": 5e-324},
    {"extra_body": {"top_k": 2**70}},
    {"extra_body": {"min_p": 1.0}},
    {"presence_penalty": 2.0, "frequency_penalty": 2.0},
    {"presence_penalty": -2.0, "frequency_penalty": -2.0, "max_tokens": 100},
    {"logit_bias": {str(token): 100.0 for token in range(257)}},
    {"logit_bias": {str(token): -100.0 for token in range(257)}},
    {"seed": -(2**63), "n": 16},
    {"seed": 2**63 - 1, "n": 16},
]


def test_every_bound_is_served_and_none_harms_another(client: openai.OpenAI) -> None:
    def ask(kind: str, asked: dict[str, Any]) -> list[str]:
        return texts(whole(client, kind, **{"max_tokens": 5, **asked}))

    greedy: dict[str, Any] = {"temperature": 0, "logit_bias": NO_END}
    alone = ask("text", greedy)
    with ThreadPoolExecutor(32) as pool:
        neighbours = [pool.submit(ask, "text", greedy) for _ in range(3)]
        for bound in [pool.submit(ask, kind, bound) for kind in ("chat", "text") for bound in BOUNDS]:
            assert bound.result()
        assert [neighbour.result() for neighbour in neighbours] == [alone] * 3
    assert ask("text", {**greedy, "temperature": 1e-40}) == alone


@pytest.mark.parametrize("stream", [False, True])
def test_echo_puts_the_prompt_first_in_every_choice(client: openai.OpenAI, stream: bool) -> None:
    asked: Any = {"n": 2, "seed": 1, "max_tokens": 5, "logit_bias": NO_END}
    plain = texts(whole(client, "text", **asked))
    answer = whole(client, "text", **asked, echo=True, stream=stream)
    echoed = list(dict(sorted(Streamed(answer).texts.items())).values()) if stream else texts(answer)
    assert echoed == ["hello" + text for text in plain]


def test_newer_limit_wins_over_the_older(client: openai.OpenAI) -> None:
    asked: Any = {"temperature": 0, "logit_bias": NO_END}
    both = whole(client, "chat", **asked, max_completion_tokens=3, max_tokens=9)
    assert both.usage.completion_tokens == 3
    assert whole(client, "chat", **asked, max_tokens=9).usage.completion_tokens == 9
    assert whole(client, "text", **asked).usage.completion_tokens == 16  # OpenAI's default


def test_usage_counts_all_choices_and_only_the_last_chunk_has_it(client: openai.OpenAI) -> None:
    asked: Any = {"n": 3, "max_tokens": 4, "logit_bias": NO_END, "seed": 1}
    chunks = list(whole(client, "text", **asked, stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 12)
    assert chunks[-1].usage.prompt_tokens == len("hello")
    assert len({chunk.id for chunk in chunks}) == 1


SPECIAL: Any = {"temperature": 0, "max_tokens": 6, "logit_bias": {"256": 100}, "extra_body": {"ignore_eos": True}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("stops", "keeps", "text"),
    [
        ({"stop": ["<end>"]}, {}, ""),
        ({"stop": ["d><e"]}, {}, ""),
        ({"stop_token_ids": [256]}, {}, ""),
        ({"stop": ["<end>"]}, {"skip_special_tokens": False, "include_stop_str_in_output": True}, "<end>"),
        ({"stop": ["d><e"]}, {"skip_special_tokens": False}, "<en"),
        ({"stop_token_ids": [256]}, {"skip_special_tokens": False, "include_stop_str_in_output": True}, "<end>"),
    ],
)
def test_special_token_ends_the_answer(
    client: openai.OpenAI, stops: dict[str, Any], keeps: dict[str, Any], text: str, stream: bool
) -> None:
    asked = {**SPECIAL, "extra_body": {"ignore_eos": True, **stops, **keeps}}
    found = whole(client, "text", **asked, stream=stream)
    if stream:
        streamed = Streamed(found)
        assert (streamed.texts[0], streamed.finish[0]) == (text, "stop")
    else:
        assert (found.choices[0].text, found.choices[0].finish_reason) == (text, "stop")
        assert found.usage.completion_tokens == (2 if "d><e" in stops.get("stop", ()) else 1)


def test_special_tokens_are_shown_where_they_are_asked_for(client: openai.OpenAI) -> None:
    assert whole(client, "text", **SPECIAL).choices[0].text == ""
    shown = {"ignore_eos": True, "skip_special_tokens": False}
    assert texts(whole(client, "text", **{**SPECIAL, "extra_body": shown})) == ["<end>" * 6]


def test_no_end_and_no_stop_counts_before_the_fewest_tokens(client: openai.OpenAI) -> None:
    asked: Any = {"temperature": 0, "logit_bias": {"256": 100}, "max_tokens": 9}
    assert whole(client, "text", **asked).usage.completion_tokens == 1
    at_least = whole(client, "text", **asked, extra_body={"min_tokens": 5})
    assert (at_least.usage.completion_tokens, at_least.choices[0].finish_reason) == (6, "stop")
    letters: Any = {"guided_regex": "[a-z]{9}"}
    full = texts(whole(client, "text", temperature=0, extra_body=letters))[0]
    late = whole(client, "text", temperature=0, stop=list(full[:5]), extra_body={**letters, "min_tokens": 4})
    assert texts(late) == [full[:4]]


def test_bad_words_never_come_however_they_are_cut(client: openai.OpenAI) -> None:
    letters: Any = {"guided_regex": "[a-z]{24}"}
    full = texts(whole(client, "text", temperature=0, max_tokens=30, extra_body=letters))[0]
    words = [full[2:5], full[10:12]]
    asked: Any = {"temperature": 0, "max_tokens": 30, "extra_body": {**letters, "bad_words": words}}
    without = texts(whole(client, "text", **asked))[0]
    assert len(without) == 24 and not any(word in without for word in words)


def test_repetition_penalty_counts_the_prompt(client: openai.OpenAI) -> None:
    asked: Any = {"temperature": 0, "max_tokens": 30, "logit_bias": NO_END, "logprobs": 0}
    said = whole(client, "text", **asked).choices[0].logprobs.tokens
    other = whole(client, "text", **asked, extra_body={"repetition_penalty": 100.0}).choices[0].logprobs.tokens
    assert len(set(said)) < 30
    assert len(set(other)) == 30 and not set(other) & set("hello")


def test_best_of_returns_the_likeliest_and_counts_all(client: openai.OpenAI) -> None:
    asked: Any = {"seed": 3, "max_tokens": 8, "logit_bias": NO_END, "logprobs": 0}
    every = whole(client, "text", n=6, **asked)
    best = whole(client, "text", n=2, best_of=6, **asked)
    means = {choice.text: sum(choice.logprobs.token_logprobs) / 8 for choice in every.choices}
    assert texts(best) == sorted(means, key=lambda text: -means[text])[:2]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage == every.usage
    bare = whole(client, "text", n=2, best_of=6, **{**asked, "logprobs": None})
    assert texts(bare) == texts(best) and bare.choices[0].logprobs is None


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"guided_choice": ["red", "green", "blue"]}, "red|green|blue"),
        ({"structured_outputs": {"choice": ['a "quoted" one', "é\n"]}}, 'a "quoted" one|é\n'),
        ({"guided_regex": "[a-c]{2}x"}, "[a-c]{2}x"),
        ({"structured_outputs": {"grammar": 'start: "a" ("b" | "c")'}}, "a[bc]"),
        ({"grammar": 'root ::= "a" [0-9] "z"'}, "a[0-9]z"),
        ({"grammar": {"type": "regex", "value": "q+r"}}, "q+r"),
        ({"guided_json": '{"enum": [1, 2]}'}, "1|2"),
        ({"response_format": {"type": "regex", "value": "yes|no"}}, "yes|no"),
        ({"json_schema": {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}}, r'\{"a": 1\}'),
    ],
)
def test_answer_keeps_to_its_form(client: openai.OpenAI, form: dict[str, Any], pattern: str) -> None:
    answer = whole(client, "chat", seed=1, max_tokens=60, temperature=2, extra_body=form)
    assert answer.choices[0].finish_reason == "stop"
    assert re.fullmatch(pattern, texts(answer)[0]), texts(answer)


def tokens_of(text: str) -> list[int]:
    """The tokens of a model that has one for each byte, in the order of GPT-2's letters."""
    letters = {byte: place for place, (_, byte) in enumerate(sorted(_byte_letters().items()))}
    return [letters[byte] for byte in text.encode()]


def test_log_probabilities_of_a_prompt_are_those_with_which_it_was_written(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "temperature": 0, "logit_bias": NO_END, "logprobs": 2}
    written = client.completions.create(prompt="hello", max_tokens=8, **asked).choices[0].logprobs
    told = client.completions.create(prompt="hello", max_tokens=8, echo=True, **asked).choices[0].logprobs
    assert len(told.tokens) == 5 + 8
    assert told.tokens[5:] == written.tokens and told.tokens[:5] == list("hello")
    assert told.token_logprobs[0] is None and told.top_logprobs[0] is None
    ids = [tokens_of(text)[0] if len(text) == 1 else int(text[9:]) for text in written.tokens]
    whole_text = tokens_of("hello") + ids
    alone = client.completions.create(prompt=whole_text, max_tokens=0, echo=True, **asked).choices[0].logprobs
    assert alone.token_logprobs[0] is None and len(alone.tokens) == 13
    assert alone.token_logprobs[1:5] == pytest.approx(told.token_logprobs[1:5], abs=1e-4)
    assert alone.token_logprobs[5:] == pytest.approx(written.token_logprobs, abs=1e-4)
    assert [set(top) for top in alone.top_logprobs[5:]] == [set(top) for top in written.top_logprobs]
