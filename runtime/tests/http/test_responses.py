"""POST /v1/responses as the official client sees it, and token routes."""

from pathlib import Path
from typing import Any

import openai
import pytest
from fakes import ByteCodec
from openai.types.responses import Response
from site_in_memory import Site

HERMES = (
    "{{ tools | tojson }}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}({{ c.function.name }} {{ c.id }}){% endfor %}{{ m.tool_call_id }}"
    "{{ m.reasoning_content }}{% endfor %}<think></think><tool_call>"
)
CALLED = '<think>Hm.</think>Looking.<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path, codec=ByteCodec(HERMES))
    site.engine.context_length, site.engine.ends = 4096, True
    return site


@pytest.fixture
def client(site: Site) -> openai.OpenAI:
    return openai.OpenAI(
        base_url="http://testserver/v1",
        api_key="none",
        http_client=site.client,
        max_retries=0,
        _strict_response_validation=True,
    )


def test_a_text_is_answered(client: openai.OpenAI, site: Site) -> None:
    response = client.responses.create(model="m", input="hi", instructions="Be brief.", metadata={"a": "b"})
    assert response.output_text == "hello" and response.status == "completed" and response.metadata == {"a": "b"}
    assert bytes(site.engine.jobs[0].prompt).startswith(b"null<system>Be brief.<user>hi")
    assert response.usage is not None and response.usage.output_tokens == 6
    cut = client.responses.create(model="m", input="hi", max_output_tokens=2)
    assert (cut.output_text, cut.status) == ("he", "incomplete")
    assert cut.incomplete_details is not None and cut.incomplete_details.reason == "max_output_tokens"


def test_a_stream_has_the_events_in_openais_order(client: openai.OpenAI, site: Site) -> None:
    site.engine.text = CALLED
    events = list(client.responses.create(model="m", input="hi", tools=[WEATHER], stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events if not event.type.endswith("delta")]
    part = ["response.content_part.added", "done", "response.content_part.done"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        *(kind if kind != "done" else "response.reasoning_text.done" for kind in part),
        "response.output_item.done",
        "response.output_item.added",
        *(kind if kind != "done" else "response.output_text.done" for kind in part),
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    with client.responses.stream(model="m", input="hi", tools=[WEATHER]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text == "Looking."
    assert final.output[2].type == "function_call" and final.output[2].arguments == '{"city": "Paris"}'


def test_calls_and_results_go_back_as_items(client: openai.OpenAI, site: Site) -> None:
    site.engine.text = CALLED
    first = client.responses.create(model="m", input="hi", tools=[WEATHER])
    assert Response.model_validate(first.model_dump()).tools[0].type == "function"
    call = first.output[-1]
    assert call.type == "function_call"
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        *(item.model_dump() for item in first.output),
        {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny"},
    ]
    client.responses.create(model="m", input=items)
    asked = bytes(site.engine.jobs[-1].prompt).decode()
    assert f"<user>hi<assistant>Looking.(weather {call.call_id})Hm.<tool>Sunny{call.call_id}" in asked


def test_json_is_asked_for_in_text_format(client: openai.OpenAI, site: Site) -> None:
    form: Any = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    response = client.responses.create(model="m", input="hi", text={"format": form})
    assert site.engine.jobs[0].sampling.grammar is not None
    assert response.text is not None and response.text.format is not None


def test_a_failure_in_a_stream_is_an_event(client: openai.OpenAI, site: Site) -> None:
    site.engine.fails_after = 2
    last = list(client.responses.create(model="m", input="hi", stream=True))[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None and "the model failed" in last.response.error.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        (
            {"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"}]},
            "input",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].name"),
        ({"tools": [WEATHER], "tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"temperature": -1}, "temperature"),
        ({"adapters": [{"name": "a", "strength": 99}]}, "adapters[0].strength"),
    ],
)
def test_what_cannot_be_served_is_400_and_named(site: Site, fields: dict[str, Any], param: str) -> None:
    body = {"model": "m", "input": "hi"} | fields
    error = site.error(site.client.post("/v1/responses", json=body), 400)
    assert error["param"] == param and site.engine.jobs == []


def test_what_was_never_stored_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nothing is stored"):
        client.responses.retrieve("resp_1")


def test_tokens_of_prompts_and_conversations(site: Site) -> None:
    got = site.client.post("/tokenize", json={"prompt": "hi", "return_token_strs": True}).json()
    assert got == {"count": 2, "max_model_len": 4096, "tokens": [104, 105], "token_strs": ["h", "i"]}
    talk = site.client.post("/tokenize", json={"model": "m", "messages": [{"role": "user", "content": "hi"}]}).json()
    assert bytes(talk["tokens"]).startswith(b"null<user>hi")
    assert site.client.post("/detokenize", json={"tokens": [104, 105]}).json() == {"prompt": "hi"}
    assert site.error(site.client.post("/detokenize", json={"tokens": [256]}), 400)["param"] == "tokens"
    assert site.error(site.client.post("/tokenize", json={}), 400)["param"] == "prompt"
    site.error(site.client.post("/tokenize", json={"model": "nope", "prompt": "x"}), 404)
