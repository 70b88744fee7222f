"""Tools over HTTP: what the model is shown, what it must write, and what clients get."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
import torch
from fakes import ByteCodec
from site_in_memory import Site

from kaito_runtime.engine.protocol import Sampling
from kaito_runtime.engine.sampling import Sampler, choose
from kaito_runtime.errors import RequestError
from kaito_runtime.model.load import load_model
from kaito_runtime.model.tool_formats import TOOL_FORMATS
from kaito_runtime.openai.codec import HuggingFaceCodec
from kaito_runtime.openai.fields.forms import AnswerForm
from kaito_runtime.openai.requests import ChatRequest
from kaito_runtime.openai.tool_plan import call_grammar, plan_chat

CITY = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/City"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city"],
    "$defs": {"City": {"enum": ["Paris", "Rome"]}},
}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Says it.", "parameters": CITY}}
TIME = {"type": "function", "function": {"name": "time"}}
USER = {"role": "user", "content": "Weather?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
HISTORY = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"},
]
ASKED = {"model": "m", "messages": [USER]}
HERMES = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}{% for m in messages %}<{{ m.role }}>"
    "{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.arguments | tojson }}</tool_call>"
    "{% endfor %}{% if m.role == 'tool' %}({{ m.name }} {{ m.tool_call_id }}){% endif %}{% endfor %}<assistant>"
)
WRITTEN = 'Looking.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.fixture
def hermes(tmp_path: Path) -> Site:
    site = Site(tmp_path, codec=ByteCodec(HERMES))
    site.engine.context_length, site.engine.ends, site.engine.text = 4096, True, WRITTEN
    return site


@pytest.fixture
def plain(tmp_path: Path) -> Site:
    """A server whose chat template knows no tools."""
    site = Site(tmp_path)
    site.engine.context_length, site.engine.ends = 4096, True
    return site


def ask(site: Site, **fields: Any) -> Any:
    response = site.client.post("/v1/chat/completions", json=ASKED | fields)
    assert response.status_code == 200, response.text
    return response


def prompt(site: Site) -> str:
    return bytes(site.engine.jobs[-1].prompt).decode()


def test_a_call_is_answered_with_its_finish_reason(hermes: Site) -> None:
    choice = ask(hermes, tools=[WEATHER]).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Looking."
    (call,) = choice["message"]["tool_calls"]
    assert call["id"].startswith("call_") and call["type"] == "function"
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Paris"}'}
    assert '"description": "Says it."' in prompt(hermes) and hermes.engine.jobs[-1].sampling.grammar is None


def test_a_stream_has_the_name_first_and_the_arguments_in_pieces(hermes: Site) -> None:
    lines = ask(hermes, tools=[WEATHER], stream=True).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls = [part for delta in deltas for part in delta.get("tool_calls", ())]
    assert calls[0]["function"] == {"name": "weather", "arguments": ""} and calls[0]["type"] == "function"
    assert len(calls) > 5 and all(set(part) == {"index", "function"} for part in calls[1:])
    assert "".join(part["function"]["arguments"] for part in calls) == '{"city": "Paris"}'
    assert "".join(delta.get("content") or "" for delta in deltas) == "Looking."
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_the_official_client_understands_calls_whole_and_streamed(hermes: Site) -> None:
    client = openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=hermes.client)
    asked: Any = {"model": "m", "messages": [USER], "tools": [WEATHER]}
    choice = client.chat.completions.create(**asked).choices[0]
    with client.chat.completions.stream(**asked) as stream:
        last = stream.get_final_completion().choices[0]
    for each in (choice, last):
        assert each.finish_reason == "tool_calls" and each.message.content == "Looking."
        (call,) = each.message.tool_calls
        assert json.loads(call.function.arguments) == {"city": "Paris"}
        again = [USER, each.message.model_dump(exclude_none=True)]
        result: Any = {"role": "tool", "tool_call_id": call.id, "content": "Sunny"}
        client.chat.completions.create(model="m", messages=[*again, result])  # type: ignore[list-item]
        assert f"Sunny(weather {call.id})" in prompt(hermes)


def test_parallel_calls_only_where_they_are_wanted(hermes: Site) -> None:
    hermes.engine.text = WRITTEN + WRITTEN.removeprefix("Looking.")
    both = ask(hermes, tools=[WEATHER]).json()["choices"][0]["message"]["tool_calls"]
    assert len(both) == 2 and both[0]["id"] != both[1]["id"]
    one = ask(hermes, tools=[WEATHER], parallel_tool_calls=False).json()["choices"][0]
    assert len(one["message"]["tool_calls"]) == 1 and one["finish_reason"] == "tool_calls"
    assert hermes.engine.cancelled == [1], "nothing is generated after the only call"


def test_none_is_answered_as_without_tools(hermes: Site) -> None:
    ask(hermes)
    without = prompt(hermes)
    message = ask(hermes, tools=[WEATHER], tool_choice="none").json()["choices"][0]["message"]
    assert prompt(hermes) == without and message == {"role": "assistant", "content": WRITTEN}


def test_earlier_calls_and_results_are_handed_to_the_template(hermes: Site) -> None:
    ask(hermes, messages=HISTORY)
    assert prompt(hermes) == (
        '<user>Weather?<assistant><tool_call>{"city": "Paris"}</tool_call><tool>Sunny(weather call_1)<assistant>'
    )


def test_they_become_text_where_the_template_knows_no_tools(plain: Site) -> None:
    ask(plain, messages=[*HISTORY, {"role": "user", "content": "Thanks"}])
    assert prompt(plain) == (
        'user:Weather?\nassistant:{"name": "weather", "arguments": {"city": "Paris"}}\n'
        "user:The function weather returned: Sunny\nThanks\n"
    )


def test_tools_are_described_where_the_template_knows_none(plain: Site) -> None:
    plain.engine.text = '{"name": "weather", "arguments": {"city": "Rome"}}'
    message = ask(plain, messages=[{"role": "developer", "content": "Be brief."}, USER], tools=[WEATHER, TIME]).json()
    assert message["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}'
    shown = prompt(plain)
    assert shown.startswith("system:Be brief.\n\nYou can call functions.") and '{"name": "time"}' in shown
    plain.engine.text = "It is sunny."
    assert ask(plain, tools=[WEATHER]).json()["choices"][0]["message"]["content"] == "It is sunny."


def test_a_template_without_system_messages_shows_tools_in_the_first_question(tmp_path: Path) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"
    )
    site = Site(tmp_path, codec=ByteCodec(template))
    site.engine.context_length = 4096
    ask(site, tools=[TIME])
    assert prompt(site).startswith("You can call functions.") and prompt(site).endswith("Weather?")


def test_arguments_are_text_where_a_template_wants_text(tmp_path: Path) -> None:
    template = (
        "{{ tools }}{% for m in messages %}{% for c in m.tool_calls or [] %}{{ 'args ' + c.function.arguments }}"
        "{% endfor %}{% endfor %}"
    )
    site = Site(tmp_path, codec=ByteCodec(template))
    ask(site, messages=HISTORY)
    assert prompt(site) == 'Noneargs {"city": "Paris"}'


def test_ids_of_another_server_fit_the_template(tmp_path: Path) -> None:
    template = (
        "{{ tools }}[TOOL_CALLS]{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.id }}{% endfor %}"
        "{{ m.tool_call_id }}|{% endfor %}"
    )
    site = Site(tmp_path, codec=ByteCodec(template))
    ask(site, messages=HISTORY)
    _, call, result, _ = prompt(site).split("|")
    assert call == result and len(call) == 9


def test_phi_reads_the_tools_in_the_system_message(tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message.role }}{{ message.content }}{{ message['tools'] }}~{% endfor %}"
    site = Site(tmp_path, codec=ByteCodec(template + "<|tool|>"))
    site.engine.context_length = 4096
    ask(site, tools=[TIME], messages=HISTORY)
    system, _, called, _, _ = prompt(site).split("~")
    assert system == 'systemYou are a helpful assistant with some tools.[{"name": "time"}]'
    assert "weather" in called


def test_thoughts_are_apart(tmp_path: Path) -> None:
    site = Site(tmp_path, codec=ByteCodec("{{ messages[0].content }}</think><think>\n"))
    site.engine.text, site.engine.ends = "Hm.</think>\n\nYes.", True
    message = ask(site).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    ask(site, response_format=form)
    assert prompt(site).endswith("<think></think>\n\n"), "JSON that must come has no thoughts in front"


def test_a_forced_call_begins_in_the_prompt_and_has_a_grammar(hermes: Site) -> None:
    hermes.engine.text = '{"name": "weather", "arguments": {"city": "Paris"}}'
    message = ask(hermes, tools=[WEATHER, TIME], tool_choice="required").json()["choices"][0]["message"]
    assert message["content"] is None and message["tool_calls"][0]["function"]["name"] == "weather"
    assert prompt(hermes).endswith("<assistant><tool_call>\n")
    assert hermes.engine.jobs[-1].sampling.grammar is not None


def test_json_and_tools_may_be_asked_for_at_once(hermes: Site) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "properties": {"a": {}}}}}
    hermes.engine.text = '{"name": "weather", "arguments": {"city": "Paris"}}'
    assert ask(hermes, tools=[WEATHER], response_format=form).json()["choices"][0]["message"]["tool_calls"]
    hermes.engine.text = '{"a": 1}'
    assert ask(hermes, tools=[WEATHER], response_format=form).json()["choices"][0]["message"]["content"] == '{"a": 1}'


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", **function}}


def with_call(**function: Any) -> list[dict[str, Any]]:
    call = {"id": "1", "type": "function", "function": {"name": "f", **function}}
    return [USER, {"role": "assistant", "tool_calls": [call]}]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tools": [tool(parameters={"type": "array"})]}, "tools[0].function.parameters", "of type 'object'"),
        ({"tools": [tool(parameters={"type": "strng"})]}, "tools[0].function.parameters", "of type 'object'"),
        ({"tools": [tool(parameters={"properties": 5})]}, "tools[0].function.parameters", "an object, got 5"),
        (
            {"tools": [TIME, tool(parameters={"type": "object", "properties": {"a": {"type": "strng"}}})]},
            "tools[1].function.parameters",
            "strng",
        ),
        (
            {"tools": [tool(parameters={"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}})]},
            "tools[0].function.parameters",
            "does not exist",
        ),
        (
            {
                "tools": [tool(parameters={"type": "object", "properties": {"a": {"uniqueItems": True}}})],
                "tool_choice": "required",
            },
            "tools[0].function.parameters",
            "uniqueItems",
        ),
        ({"tools": [tool(parameters=deep(100))]}, "tools[0].function.parameters", "at most 64 levels"),
        ({"tools": [tool(parameters="x")]}, "tools[0].function.parameters", "mapping"),
        ({"tools": [tool(name="a b")]}, "tools[0].function.name", "a b"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "function"),
        ({"tools": [tool(), TIME, tool()]}, "tools[2].function.name", "unique, got 'f', as tools[0]"),
        ({"tools": [tool(name=f"f{i}") for i in range(10_000)]}, "tools", "128"),
        ({"tool_choice": "required"}, "tool_choice", "where tools are not given"),
        ({"tools": [TIME], "tool_choice": "any"}, "tool_choice", "'auto', 'none', 'required'"),
        (
            {"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "g"}}},
            "tool_choice",
            "'g', which is not among the tools: time",
        ),
        ({"functions": [{"name": "f"}]}, "functions", "give the functions as tools"),
        ({"messages": with_call(arguments="{x")}, "messages[1].tool_calls[0].function.arguments", "a JSON object"),
        ({"messages": with_call(arguments="[1]")}, "messages[1].tool_calls[0].function.arguments", "a JSON object"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages[1]", "tool_call_id"),
        ({"messages": [{**HISTORY[1], "role": "user"}]}, "messages[0]", "'assistant'"),
        ({"messages": [USER, {"role": "function", "name": "f", "content": "x"}]}, "messages[1]", "role 'tool'"),
        (
            {"messages": [USER, {"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]},
            "messages[1].function_call",
            "",
        ),
    ],
)
def test_bad_tools_are_400_and_name_the_field(
    tiny_codec: HuggingFaceCodec, tmp_path: Path, fields: dict[str, Any], param: str, words: str
) -> None:
    site = Site(tmp_path, codec=tiny_codec)
    site.engine.context_length, site.engine.vocabulary_size = 4096, 257
    error = site.error(site.client.post("/v1/chat/completions", json=ASKED | fields), 400)
    assert error["param"] == param and words in error["message"]
    assert site.engine.jobs == []


@pytest.fixture(scope="module")
def tiny_codec(tiny_llama: Path) -> HuggingFaceCodec:
    loaded = load_model(tiny_llama)
    return HuggingFaceCodec(loaded.tokenizer, loaded.end_tokens)


ANY_OF = {"type": "json_schema", "json_schema": {"schema": {"const": 7}}}


@pytest.mark.parametrize("form", [None, *TOOL_FORMATS], ids=lambda form: form.name if form else "plain")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("single", [False, True])
def test_whatever_the_logits_say_a_forced_call_follows_its_schema(
    tiny_codec: HuggingFaceCodec, form: Any, seed: int, single: bool
) -> None:
    codec = HuggingFaceCodec(tiny_codec._tokenizer, {256}, [form] if form else ())
    request = ChatRequest.model_validate(
        ASKED | {"tools": [WEATHER, TIME], "tool_choice": "required", "parallel_tool_calls": not single}
    )
    calls = _calls(codec, request, seed)
    assert 1 <= len(calls) <= (1 if single else 16)
    for name, arguments in calls:
        jsonschema.validate(json.loads(arguments), CITY if name == "weather" else {"const": {}})


def _calls(codec: HuggingFaceCodec, request: ChatRequest, seed: int) -> list[tuple[str, str]]:
    """Returns what a model that means nothing by what it says calls."""
    plan = plan_chat(request, codec, has_form=False)
    sampling = Sampling(grammar=codec.grammar(AnswerForm("lark", call_grammar(plan), "tools")), seed=seed)
    sampler, random = Sampler(sampling), torch.Generator().manual_seed(seed)
    tokens: list[int] = []
    while not tokens or tokens[-1] != 256:
        (outcome,) = choose([sampler], torch.randn(1, 257, generator=random))
        assert not isinstance(outcome, RequestError)
        tokens.append(outcome[0])
        assert len(tokens) < 2000
    reader, calls = plan.new_reader(), []
    for got in (reader.push(codec.decode(tokens)), reader.flush()):
        assert not got.text
        for part in got.calls:
            if part.name:
                calls.append([part.name, ""])
            calls[-1][1] += part.arguments
    return [(name, arguments) for name, arguments in calls]
