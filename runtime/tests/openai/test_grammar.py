"""Answers of a shape, from the grammar over the sampler to the official client's view of a live server."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
import torch
from live import serving

from kaito_core.api.serving import ServingConfig
from kaito_runtime.engine.protocol import Sampling
from kaito_runtime.engine.sampling import Sampler, choose
from kaito_runtime.errors import RequestError
from kaito_runtime.model.load import load_model
from kaito_runtime.openai.codec import HuggingFaceCodec
from kaito_runtime.openai.fields.forms import AnswerForm, closed

MESSAGES: Any = [{"role": "user", "content": "hello"}]
# Bounded, so that a model that means nothing by what it says comes to an end.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "legs": {"type": "integer", "minimum": 0, "maximum": 9},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["kind", "legs", "tags"],
    "additionalProperties": False,
}


def asking(schema: Any, **more: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}, **more}


@pytest.fixture(scope="module")
def codec(tiny_llama: Path) -> HuggingFaceCodec:
    loaded = load_model(tiny_llama, dtype="float32")
    return HuggingFaceCodec(loaded.tokenizer, loaded.end_tokens)


def written(codec: HuggingFaceCodec, schema: Any, seed: int, vocabulary: int = 257, **sampling: Any) -> str:
    """Returns what a model that means nothing says, to its end."""
    sampler = Sampler(Sampling(grammar=codec.grammar(AnswerForm("json", schema)), seed=seed, **sampling))
    random = torch.Generator().manual_seed(seed)
    tokens: list[int] = []
    while True:
        (outcome,) = choose([sampler], torch.randn(1, vocabulary, generator=random))
        assert not isinstance(outcome, RequestError)
        token = outcome[0]
        if token == 256:
            return codec.decode(tokens)
        tokens.append(token)
        assert len(tokens) < 500


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0}, {"temperature": 5.0, "top_k": 3}, {"top_p": 0.1}], ids=str
)
def test_whatever_the_logits_say_the_answer_follows_the_schema(
    codec: HuggingFaceCodec, seed: int, sampling: dict[str, Any]
) -> None:
    jsonschema.validate(json.loads(written(codec, SCHEMA, seed, **sampling)), SCHEMA)


def test_bias_and_penalties_cannot_leave_the_schema(codec: HuggingFaceCodec) -> None:
    bias = dict.fromkeys(range(257), -100.0) | {7: 100.0}
    text = written(codec, SCHEMA, 0, logit_bias=bias, presence_penalty=2.0, frequency_penalty=2.0)
    jsonschema.validate(json.loads(text), SCHEMA)


def test_model_with_more_logits_than_tokens_never_takes_one_that_is_none(codec: HuggingFaceCodec) -> None:
    bias = dict.fromkeys(range(257, 300), 100.0)
    assert written(codec, {"const": "a"}, 0, vocabulary=300, logit_bias=bias) == '"a"'


def test_one_grammar_serves_several_sequences(codec: HuggingFaceCodec) -> None:
    grammar = codec.grammar(AnswerForm("json", {"const": [1]}))
    ways = [grammar.start(), grammar.start()]
    first = grammar.allowed()
    ways[0].push(codec.encode("[")[0])
    assert ways[0].allowed() != first
    assert ways[1].allowed() == grammar.allowed() == first


def allowed(way: Any) -> list[int]:
    return [token for token in range(257) if way.allowed()[token // 8] >> token % 8 & 1]


def test_after_the_end_only_an_end_token_may_come(codec: HuggingFaceCodec) -> None:
    way = codec.grammar(AnswerForm("json", {"const": 1})).start()
    way.push(codec.encode("1")[0])
    for _ in range(3):
        assert allowed(way) == [256]
        way.push(256)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "nothing"}, "Invalid type: nothing"),
        ({"type": "object", "properties": 3}, "properties must be an object"),
        ({"$ref": "#/$defs/none"}, "does not exist"),
        ({"$ref": "https://example.com/schema"}, "not present"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"not": {"type": "string"}}, "Unimplemented keys"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "Unsatisfiable"),
        ({"$ref": "#"}, "no answer can follow it"),
        ({"minimum": float("nan"), "type": "number"}, "must be a JSON schema: "),
        ({"minimum": -(10**300), "type": "integer"}, "integer range"),
    ],
)
def test_schema_that_cannot_be_kept_to_is_named_as_the_field(
    codec: HuggingFaceCodec, schema: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words) as refusal:
        codec.grammar(AnswerForm("json", schema))
    assert (refusal.value.status, refusal.value.param) == (400, "response_format.json_schema.schema")
    assert "\n" not in str(refusal.value).partition("regex parse error")[0]


def test_tokenizer_without_a_vocabulary_to_read_says_what_is_served() -> None:
    with pytest.raises(RequestError, match="are not possible with this model") as refusal:
        HuggingFaceCodec(object()).grammar(AnswerForm("json", {}))
    assert refusal.value.param == "response_format.type"


@pytest.mark.parametrize("model", ["tiny", "base", "one"])
def test_every_choice_follows_the_schema_whole_and_streamed(client: openai.OpenAI, model: str) -> None:
    asked: Any = asking(SCHEMA, model=model, messages=MESSAGES, max_tokens=150, n=3, seed=4, temperature=1.5)
    whole = client.chat.completions.create(**asked)
    texts = [choice.message.content or "" for choice in whole.choices]
    assert [choice.finish_reason for choice in whole.choices] == ["stop"] * 3
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)
    assert len(set(texts)) > 1
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**asked, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_batch_of_all_sorts_gives_each_what_it_gets_alone(client: openai.OpenAI) -> None:
    shapes: list[dict[str, Any]] = [
        asking(SCHEMA),
        {},
        asking({"enum": ["left", "right"]}),
        {"response_format": {"type": "json_object"}, "max_tokens": 12},
    ]

    def ask(index: int) -> str:
        more = {"max_tokens": 60, "temperature": 0, **shapes[index % 4]}
        adapters = [[], [{"name": "one"}], [{"name": "two", "strength": -0.5}]][index % 3]
        answer = client.completions.create(model="tiny", prompt=f"p{index}", extra_body={"adapters": adapters, **more})
        return answer.choices[0].text

    alone = [ask(index) for index in range(12)]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, range(12)))
    assert together == alone
    assert {alone[2], alone[6], alone[10]} <= {'"left"', '"right"'}
    assert all(alone[index].startswith("{") for index in (3, 7, 11))


def test_answer_that_is_cut_says_so_and_stop_strings_still_hold(client: openai.OpenAI) -> None:
    asked: Any = {"model": "tiny", "prompt": "a", "temperature": 0}
    cut = client.completions.create(**asked, max_tokens=3, extra_body=asking(SCHEMA)).choices[0]
    assert (cut.finish_reason, cut.text) == ("length", '{"k')
    stopped = client.completions.create(**asked, max_tokens=99, stop=["legs"], extra_body=asking(SCHEMA)).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.text.endswith(', "')


@pytest.mark.parametrize(
    ("shape", "param"),
    [
        ({"type": "json_schema"}, "response_format"),
        ({"type": "json_schema", "json_schema": {}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": "x"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}, "response_format.json_schema.schema"),
        ({"type": "grammar"}, "response_format.type"),
        ("json", "response_format"),
    ],
)
def test_bad_shape_is_400_and_named(client: openai.OpenAI, shape: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model="tiny", messages=MESSAGES, extra_body={"response_format": shape})
    assert refusal.value.param == param
    client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=1, response_format={"type": "text"})


def test_schema_that_proves_too_much_midway_ends_its_request_alone(client: openai.OpenAI) -> None:
    """Grammars have limits that only show while an answer grows: it must not pass for a complete one."""
    many = [{"type": "object", "properties": {f"p{i}": {}}, "required": [f"p{i}"]} for i in range(2100)]
    asked: Any = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "max_tokens": 30}

    def too_much() -> openai.BadRequestError:
        with pytest.raises(openai.BadRequestError, match="use a simpler schema") as refusal:
            client.chat.completions.create(**asked, extra_body=asking({"anyOf": many}))
        return refusal.value

    alone = client.chat.completions.create(**asked).choices[0].message
    with ThreadPoolExecutor(4) as pool:
        refusals = [pool.submit(too_much) for _ in range(2)]
        others = [pool.submit(client.chat.completions.create, **asked) for _ in range(2)]
    assert {(each.result().code, each.result().param) for each in refusals} == {
        ("schema_too_complex", "response_format")
    }
    assert [each.result().choices[0].message for each in others] == [alone, alone]
    with pytest.raises(openai.APIError, match="use a simpler schema"):
        list(client.chat.completions.create(**asked, stream=True, extra_body=asking({"anyOf": many})))


def test_answer_must_be_able_to_end(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="ignore_eos") as refusal:
        client.completions.create(model="tiny", prompt="a", extra_body=asking(SCHEMA, ignore_eos=True))
    assert refusal.value.param == "ignore_eos"


@pytest.mark.slow
@pytest.mark.model
def test_real_model_fills_in_schemas_among_requests_without(smollm2: Path) -> None:
    def strings(*names: str) -> dict[str, Any]:
        properties = {name: {"type": "string", "maxLength": 30} for name in names}
        return {"type": "object", "properties": properties, "required": list(names), "additionalProperties": False}

    place, animal = strings("city", "country"), strings("animal", "sound")
    asked: list[tuple[str, dict[str, Any] | None]] = [
        ("Which city is the capital of France? Answer as JSON.", place),
        ("Say hello.", None),
        ("Which sound does a cow make? Answer as JSON.", animal),
        ("Count to five.", None),
    ]
    config = ServingConfig.model_validate({"model": {"name": "smollm2", "dtype": "float32"}})
    with serving(smollm2, config, cache_gib=0.1) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)

        def ask(index: int) -> str:
            """Whole in the first half, streamed in the second."""
            question, schema = asked[index % 4]
            messages: Any = [{"role": "user", "content": question}]
            more = {} if schema is None else asking(schema)
            options: Any = {"model": "base", "messages": messages, "temperature": 0, "max_tokens": 40, **more}
            if index < 4:
                return client.chat.completions.create(**options).choices[0].message.content or ""
            chunks = client.chat.completions.create(**options, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

        alone = [ask(index) for index in range(4)]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(ask, range(8)))
    assert together == alone * 2
    for index, (_, schema) in enumerate(asked):
        if schema is not None:
            jsonschema.validate(json.loads(alone[index]), schema)
    assert "Paris" in json.loads(alone[0])["city"]
    assert not any(alone[index].startswith("{") for index in (1, 3))


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("regex", "[", "unclosed character class"),
        ("regex", "(?=a)b", "look-around"),
        ("regex", "a" * 200_001, "at most 200000 characters"),
        ("grammar", "x" * 1000, "in the notation of Lark or llama.cpp"),
        ("grammar", "(" * 5000, "in the notation of Lark or llama.cpp"),
        ("grammar", "root ::= root root", "no answer can follow it"),
    ],
)
def test_form_that_is_none_is_the_requests_fault(codec: HuggingFaceCodec, kind: Any, value: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as refusal:
        codec.grammar(AnswerForm(kind, value, "structured_outputs.x"))
    assert (refusal.value.status, refusal.value.param) == (400, "structured_outputs.x")


def test_schema_that_is_nested_too_deeply_is_the_requests_fault(codec: HuggingFaceCodec) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(400):
        schema = {"type": "object", "properties": {"a": schema}}
    with pytest.raises(RequestError, match="recursion limit"):
        codec.grammar(AnswerForm("json", closed(schema, "x")))


def test_objects_are_closed_where_the_schema_does_not_say_otherwise() -> None:
    inner = {"type": "object", "properties": {"b": {"type": "integer"}}}
    schema = {"properties": {"a": inner}, "$defs": {"c": {"allOf": [inner]}}}
    assert closed(schema, "x") == {
        "properties": {"a": {**inner, "additionalProperties": False}},
        "$defs": {"c": {"allOf": [inner]}},
        "additionalProperties": False,
    }
    for opened in ({"type": "object"}, {**inner, "additionalProperties": True}, {**inner, "anyOf": [inner]}, True):
        assert closed(opened, "x") == opened
