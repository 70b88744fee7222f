"""Every field of the table: sent, it has an effect, is refused, or is known to change nothing."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from site_in_memory import CHAT as CHAT_BODY
from site_in_memory import Site

from kaito_runtime.errors import RequestError
from kaito_runtime.openai.fields.table import CHAT, FIELDS, TEXT, Does, Endpoint, FieldRule, rules_of
from kaito_runtime.openai.fields.translate import translate
from kaito_runtime.openai.requests import ChatRequest, CompletionRequest

BODIES: dict[Endpoint, dict[str, Any]] = {
    CHAT: {**CHAT_BODY, "max_tokens": 3},
    TEXT: {"model": "m", "prompt": "hello", "max_tokens": 3},
}
PATHS: dict[Endpoint, str] = {CHAT: "/v1/chat/completions", TEXT: "/v1/completions"}
SCHEMA = {"type": "object"}
TOOL = {"type": "function", "function": {"name": "f"}}
# A value of each honoured field that shows in the job, the prompt or the answer.
HONOURED: dict[str, Any] = {
    "model": "base",
    "messages": [{"role": "user", "content": "other"}],
    "prompt": "other",
    "adapters": [{"name": "a", "strength": 2}],
    "lora": [{"id": 0, "scale": -1.5}],
    "chat_template_kwargs": {"enable_thinking": False},
    "add_generation_prompt": False,
    "continue_final_message": True,
    "reasoning_effort": "low",
    "truncate_prompt_tokens": 2,
    "max_tokens": 2,
    "max_completion_tokens": 2,
    "min_tokens": 1,
    "stop": "l",
    "stop_token_ids": [5],
    "ignore_eos": True,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.5,
    "seed": 7,
    "presence_penalty": 1,
    "frequency_penalty": 1,
    "repetition_penalty": 1.9,
    "logit_bias": {"5": 3},
    "bad_words": ["colour"],
    "n": 2,
    "best_of": 2,
    "response_format": {"type": "json_object"},
    "structured_outputs": {"choice": ["a", "b"]},
    "stream": True,
    "logprobs": {CHAT: True, TEXT: 0},
    "echo": True,
    "prompt_logprobs": 1,
    "tools": [TOOL],
}
# Fields that show only beside another one.
BESIDE: dict[str, tuple[dict[str, Any], Any]] = {
    "truncation_side": ({"truncate_prompt_tokens": 2}, "right"),
    "include_stop_str_in_output": ({"stop": "l"}, True),
    "skip_special_tokens": ({}, False),
    "stream_options": ({"stream": True}, {"include_usage": True}),
    "top_logprobs": ({"logprobs": True}, 2),
    "tool_choice": ({"tools": [TOOL]}, "required"),
    "parallel_tool_calls": ({"tools": [TOOL], "tool_choice": "required"}, False),
    "add_special_tokens": ({}, {CHAT: True, TEXT: False}),
}
SPELLINGS: dict[str, tuple[Any, Any]] = {
    "adapter_id": ("a", [{"name": "a"}]),
    "lora_path": (["a"], [{"name": "a"}]),
    "lora_adapter": ("a", [{"name": "a"}]),
    "lora_request": ({"lora_name": "a", "lora_int_id": 1, "lora_path": "/x"}, [{"name": "a"}]),
    "truncate": (3, 3),
    "max_new_tokens": (3, 3),
    "n_predict": (3, 3),
    "min_new_tokens": (3, 3),
    "no_stop_trim": (True, True),
    "ignore_eos_token": (True, True),
    "n_cmpl": (2, 2),
    "guided_json": (SCHEMA, {"json": SCHEMA}),
    "guided_regex": ("a+", {"regex": "a+"}),
    "guided_choice": (["a"], {"choice": ["a"]}),
    "guided_grammar": ("x", {"grammar": "x"}),
    "regex": ("a+", {"regex": "a+"}),
    "ebnf": ("x", {"grammar": "x"}),
    "json_schema": (SCHEMA, {"json": SCHEMA}),
    "grammar": ("x", {"grammar": "x"}),
}
WAITING = {"functions"}  # must be empty


def of(does: Does) -> list[Any]:
    return [
        pytest.param(endpoint, rule, id=f"{endpoint}-{rule.name}")
        for endpoint in (CHAT, TEXT)
        for rule in rules_of(endpoint).values()
        if rule.does is does and rule.name not in WAITING
    ]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    site = Site(tmp_path_factory.mktemp("site"))
    site.engine.context_length = 300
    site.codec.special = {ord("e"): "<e>"}
    encode, seen = site.codec.encode, {}

    def remember(text: str, *, special: bool = True) -> list[int]:
        seen["special"] = special
        return encode(text, special=special)

    site.codec.encode = remember  # type: ignore[method-assign]

    def ask(endpoint: Endpoint, **fields: Any) -> Any:
        """Returns everything that a request has an effect on."""
        site.engine.jobs.clear()
        response = site.client.post(PATHS[endpoint], json=BODIES[endpoint] | fields)
        assert response.status_code == 200, response.text
        jobs = [replace(job, sampling=replace(job.sampling, grammar=None)) for job in site.engine.jobs]
        grammars = [getattr(job.sampling.grammar, "form", None) for job in site.engine.jobs]
        told = re.sub(r'"id": ?"[^"]*"|"created": ?\d+|cmpl-\w+', "", response.text)
        return jobs, grammars, told, getattr(site.codec, "rendered", None), dict(seen)

    ask.site = site  # type: ignore[attr-defined]
    return ask


@pytest.mark.parametrize(("endpoint", "rule"), of(Does.HONOURED))
def test_honoured_field_has_an_effect(asked: Any, endpoint: Endpoint, rule: FieldRule) -> None:
    beside, value = BESIDE[rule.name] if rule.name in BESIDE else ({}, HONOURED[rule.name])
    value = value[endpoint] if isinstance(value, dict) and endpoint in value else value
    without = asked(endpoint, **beside)
    assert asked(endpoint, **beside, **{rule.name: value}) != without
    assert asked(endpoint, **beside, **{rule.name: None} if rule.name not in BODIES[endpoint] else {}) == without


@pytest.mark.parametrize(("endpoint", "rule"), of(Does.SPELLING))
def test_spelling_is_the_field_that_it_stands_for(asked: Any, endpoint: Endpoint, rule: FieldRule) -> None:
    value, meant = SPELLINGS[rule.name]
    field = rule.meaning.partition(".")[0]
    base = {name: each for name, each in BODIES[endpoint].items() if name != field}
    assert translate({**base, rule.name: value}, endpoint) == {**base, field: meant}
    with pytest.raises(RequestError, match=f"must be absent where .* both mean {field}"):
        translate({**base, field: meant, rule.name: value}, endpoint)


@pytest.mark.parametrize(("endpoint", "rule"), of(Does.HARMLESS))
def test_harmless_field_changes_nothing(asked: Any, endpoint: Endpoint, rule: FieldRule) -> None:
    assert asked(endpoint, **{rule.name: {"any": ["thing", 1]}}) == asked(endpoint)


@pytest.mark.parametrize(("endpoint", "rule"), of(Does.REFUSED))
def test_refused_field_says_what_to_use(asked: Any, endpoint: Endpoint, rule: FieldRule) -> None:
    site = asked.site
    response = site.client.post(PATHS[endpoint], json=BODIES[endpoint] | {rule.name: "anything else"})
    error = site.error(response, 400)
    assert (error["param"], error["code"]) == (rule.name, "unsupported_parameter")
    assert error["message"] == f"{rule.name} is not served here, got 'anything else': {rule.meaning}"
    without = asked(endpoint)
    for neutral in (None, *rule.neutral):
        assert asked(endpoint, **{rule.name: neutral}) == without


def test_table_names_every_field_once_and_those_of_the_models() -> None:
    for endpoint, model in ((CHAT, ChatRequest), (TEXT, CompletionRequest)):
        names = [rule.name for rule in FIELDS if rule.only in (None, endpoint)]
        assert len(names) == len(set(names))
        honoured = {name for name, rule in rules_of(endpoint).items() if rule.does is Does.HONOURED}
        assert honoured == set(model.model_fields)  # type: ignore[attr-defined]
        targets = {rule.meaning.partition(".")[0] for rule in rules_of(endpoint).values() if rule.does is Does.SPELLING}
        assert targets <= honoured


def test_true_is_no_one_and_one_no_true() -> None:
    for value in (True, "1", 2):
        with pytest.raises(RequestError, match="length_penalty is not served"):
            translate({"length_penalty": value}, TEXT)
    with pytest.raises(RequestError, match="watermark is not served"):
        translate({"watermark": 0}, TEXT)
    assert translate({"length_penalty": 1, "watermark": False}, TEXT) == {}


@pytest.mark.parametrize(
    ("field", "advice"),
    [
        ("repetiton_penalty", "did you mean 'repetition_penalty'?"),
        ("lora_name", "did you mean '"),
        ("use_my_adapter", "did you mean 'adapters'?"),
        ("messages", "it is one of the other endpoint"),
        ("zzz", "leave it out"),
        ("x" * 10_000, "leave it out"),
    ],
)
def test_unknown_field_is_refused_with_the_nearest_known_one(asked: Any, field: str, advice: str) -> None:
    error = asked.site.error(asked.site.client.post("/v1/completions", json=BODIES[TEXT] | {field: 1}), 400)
    assert error["message"].startswith("Unrecognized request argument supplied: ")
    assert advice in error["message"] and len(error["message"]) < 300
    assert error["code"] == "unknown_parameter"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"lora_path": "/models/pirate"}, "adapters[0].name", "unknown adapter '/models/pirate', known: a, bad"),
        ({"adapter_id": "a,b"}, "adapter_id", "for more use adapters"),
        ({"adapter_id": ""}, "adapter_id", "use adapters"),
        ({"lora_path": ["a", None]}, "lora_path", "use adapters"),
        ({"lora_request": {"lora_int_id": 1}}, "lora_request", "use adapters"),
        ({"lora_adapter": 3}, "lora_adapter", "use adapters"),
        ({"lora": "a"}, "lora", "for a name use adapters"),
        ({"lora": [{"id": 9}]}, "lora", "unknown id 9, known: 0 (a), 1 (bad)"),
        ({"lora": [{"id": 0, "scale": 11}]}, "lora[0].scale", "between -10 and 10"),
        ({"lora": [{"id": 0}], "adapters": []}, "lora", "absent where adapters is given"),
        ({"adapters": [], "adapter_id": "a"}, "adapter_id", "both mean adapters"),
        ({"merged_adapters": {"ids": ["a"], "weights": [1]}}, "merged_adapters", "name them in adapters"),
    ],
)
def test_adapter_in_other_words_is_never_the_base_model_in_silence(
    asked: Any, fields: dict[str, Any], param: str, words: str
) -> None:
    response = asked.site.client.post("/v1/completions", json=BODIES[TEXT] | {"model": "base"} | fields)
    error = response.json()["error"]
    assert response.status_code in (400, 404)
    assert error["param"] == param and words in error["message"]


def test_adapter_in_other_words_is_applied_at_its_strength(asked: Any) -> None:
    named = {"adapter_id": "a", "lora_path": "a", "lora_adapter": "a", "lora_request": {"lora_name": "a"}}
    for field, value in named.items():
        (job,), *_ = asked(TEXT, model="base", **{field: value})
        assert {version.name: strength for version, strength in job.strengths.items()} == {"a": 0.5}
    (job,), *_ = asked(TEXT, model="base", lora=[{"id": 0, "scale": 1.25}])
    assert list(job.strengths.values()) == [1.25]
    (job,), *_ = asked(TEXT, model="a", adapter_id="__base_model__")
    assert not job.strengths


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop_token_ids": [256]}, "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [2**70]}, "stop_token_ids[0]"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"min_tokens": 4}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"bad_words": [""]}, "bad_words[0]"),
        ({"bad_words": ["x"] * 1001}, "bad_words"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"best_of": 17}, "best_of"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 0}, "prompt"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 101}, "repetition_penalty"),
        ({"structured_outputs": {}, "guided_regex": "a"}, "guided_regex"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "[]"}}, "structured_outputs.json"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a"}, "ignore_eos": True}, "ignore_eos"),
        ({"grammar": {"type": "xml", "value": ""}}, "grammar.type"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
        ({"response_format": {"type": "json", "value": "x"}}, "response_format"),
        ({"response_format": {"type": "json_object", "scheme": {}}}, "response_format.scheme"),
        ({"stream_options": {"include_usages": True}}, "stream_options.include_usages"),
    ],
)
def test_value_beyond_its_bounds_is_400_and_named(asked: Any, fields: dict[str, Any], param: str) -> None:
    error = asked.site.error(asked.site.client.post("/v1/completions", json=BODIES[TEXT] | fields), 400)
    assert (error["param"] or "").startswith(param), error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"add_generation_prompt": True, "continue_final_message": True}, "add_generation_prompt"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_chat_that_contradicts_itself_is_400(asked: Any, fields: dict[str, Any], param: str) -> None:
    error = asked.site.error(asked.site.client.post("/v1/chat/completions", json=BODIES[CHAT] | fields), 400)
    assert error["param"] == param


def test_template_is_told_whose_turn_it_is(asked: Any) -> None:
    def options(**fields: Any) -> Any:
        return asked(CHAT, **fields)[3][1]

    begins = {"add_generation_prompt": True, "continue_final_message": False}
    goes_on = {"add_generation_prompt": False, "continue_final_message": True}
    assert options() == begins
    assert options(continue_final_message=True) == goes_on
    assert options(continue_final_message=True, add_generation_prompt=False) == goes_on
    variables = {"reasoning_effort": "low", "a": 1}
    assert options(reasoning_effort="low", chat_template_kwargs={"a": 1}) == {**begins, **variables}


def test_prompt_is_cut_where_it_is_asked(asked: Any) -> None:
    def prompt(**fields: Any) -> str:
        (job,), *_ = asked(TEXT, **fields)
        return bytes(job.prompt).decode()

    long = "".join(chr(ord("a") + place % 26) for place in range(400))
    assert prompt(truncate_prompt_tokens=2) == "lo"
    assert prompt(truncate_prompt_tokens=2, truncation_side="right") == "he"
    assert prompt(truncate_prompt_tokens=9) == "hello"
    assert prompt(prompt=long, truncate_prompt_tokens=-1) == long[-297:]  # the context is 300 tokens


def test_prompt_alone_has_its_log_probabilities(asked: Any) -> None:
    """The right lists of an evaluation harness: one entry per token of the prompt, the first without a probability."""
    body = BODIES[TEXT] | {"prompt": "ab", "echo": True, "logprobs": 1}
    for tokens, words in ((0, ["a", "b"]), (1, ["a", "b", "h"])):
        for extra in ({}, {"stream": True}):
            response = asked.site.client.post("/v1/completions", json=body | {"max_tokens": tokens} | extra)
            (job,) = asked.site.engine.jobs[-1:]
            assert (job.prompt_logprobs, job.max_tokens) == (1, tokens)
            assert response.status_code == 200
        choice = asked.site.client.post("/v1/completions", json=body | {"max_tokens": tokens}).json()["choices"][0]
        found = choice["logprobs"]
        assert found["tokens"] == words
        assert found["token_logprobs"][:2] == [None, -0.5]
        assert found["top_logprobs"][:2] == [None, {"\x00": -0.25, "b": -0.5}]
        assert found["text_offset"] == list(range(len(words)))
        assert (choice["text"], choice["finish_reason"]) == ("".join(words), "length")


def test_prompt_log_probabilities_are_vllms(asked: Any) -> None:
    entry = {"decoded_token": "b", "logprob": -0.5, "rank": None}
    first = {"decoded_token": "\x00", "logprob": -0.25, "rank": 1}
    body = BODIES[TEXT] | {"prompt": "ab", "prompt_logprobs": 1}
    for choice in asked.site.client.post("/v1/completions", json=body | {"n": 2}).json()["choices"]:
        assert choice["prompt_logprobs"] == [None, {"0": first, "98": entry}]
    whole = asked.site.client.post("/v1/chat/completions", json=BODIES[CHAT] | {"prompt_logprobs": 0}).json()
    assert len(whole["prompt_logprobs"]) == whole["usage"]["prompt_tokens"]


def test_running_counts_come_with_every_event(asked: Any) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    told = asked(TEXT, stream=True, stream_options=options)[2]
    assert len(re.findall(r'"completion_tokens":3', told)) == 4  # the engine in memory gives all three at once


PAGE = Path(__file__).parents[3] / "docs/reference/http.md"
SERVERS = {"s": "SGLang", "t": "TGI", "l": "LoRAX", "c": "llama.cpp"}
INTRODUCTION = """\
# Fields of requests

What each field of a request does here, for every field that OpenAI, vLLM, SGLang, TGI, LoRAX and llama.cpp have for
completions and chat. A field that would change the answer is honoured or refused with status 400, never ignored. Null,
and the values named as "accepted", change nothing and are always accepted. A field that no server has is refused with
code `unknown_parameter` and the nearest known name.

Where a request says nothing about sampling, the values of the model's `generation_config.json` count
(`--no-model-defaults` turns that off), else temperature 1 and no other limit.
"""


def page() -> str:
    note = "<!-- Generated by runtime/tests/openai/test_fields.py with KAITO_WRITE_DOCS=1; do not edit. -->\n"
    rows = ["| endpoint | field | what it does here | OpenAI | vLLM | other servers |", "|---|---|---|---|---|---|"]
    for rule in FIELDS:
        where = {None: "both", CHAT: "chat", TEXT: "completions"}[rule.only]
        accepted = ", ".join(f"`{json.dumps(value)}`" for value in rule.neutral)
        what = {
            Does.HONOURED: rule.meaning,
            Does.SPELLING: f"the same as `{rule.meaning}`",
            Does.HARMLESS: f"ignored: {rule.meaning}",
            Does.REFUSED: f"400: {rule.meaning}" + (f"; accepted: {accepted}" if accepted else ""),
        }[rule.does]
        what += f" ({rule.differs})" if rule.differs else ""
        has = ["yes" if letter in rule.servers else "no" for letter in "ov"]
        others = ", ".join(name for letter, name in SERVERS.items() if letter in rule.servers)
        rows.append(f"| {where} | `{rule.name}` | {what} | {has[0]} | {has[1]} | {others} |")
    return "\n".join([note, INTRODUCTION, *rows]) + "\n"


def test_page_has_the_table() -> None:
    if os.environ.get("KAITO_WRITE_DOCS"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "run with KAITO_WRITE_DOCS=1"
