"""Routes, errors and streams over an engine in memory."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import ByteCodec
from site_in_memory import CHAT, Site

from kaito_runtime.engine.protocol import Sampling
from kaito_runtime.errors import RequestError
from kaito_runtime.http.app import create_app


@pytest.mark.parametrize(
    ("written", "strength"), [("0.5", 0.5), ("5e-1", 0.5), (".5", 0.5), (-2, -2.0), ("+010.0", 10.0)]
)
def test_strengths_of_a_request_are_numbers_or_decimal_text(site: Site, written: Any, strength: float) -> None:
    body = CHAT | {"adapters": [{"name": "a", "strength": written}]}
    assert site.client.post("/v1/chat/completions", json=body).status_code == 200
    assert list(site.engine.jobs[0].strengths.values()) == [strength]


LONG = "x" * 30_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "m", "prompt": LONG}),
        ("/v1/completions", {"model": "m", "prompt": [LONG, LONG]}),
        ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": LONG}]}),
        ("/chat", {"prompt": LONG}),
    ],
)
def test_probes_are_answered_while_a_long_prompt_is_read(site: Site, path: str, body: dict[str, Any]) -> None:
    answered, reading, waited = threading.Event(), threading.Event(), []

    class Slow(ByteCodec):
        def encode(self, text: str, *, special: bool = True) -> list[int]:
            reading.set()
            waited.append(answered.wait(10))
            return super().encode(text, special=special)

    async def run() -> tuple[int, int]:
        app = create_app(site.engine, Slow(), site.manager, site.health)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            asked = asyncio.create_task(client.post(path, json=body))
            while not reading.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0)
            probe = await client.get("/livez")
            answered.set()
            return probe.status_code, (await asked).status_code

    assert asyncio.run(run()) == (200, 400)  # it is longer than the context, which shows when its tokens are counted
    assert set(waited) == {True}


def test_choices_that_do_not_fit_the_queue_cancel_those_that_did(site: Site) -> None:
    submit = site.engine.submit

    def second_fails(job: Any) -> Any:
        if site.engine.jobs:
            raise RequestError("full", status=429, code="rate_limit_exceeded")
        return submit(job)

    site.engine.submit = second_fails
    site.error(site.client.post("/v1/chat/completions", json=CHAT | {"n": 2}), 429)
    assert site.engine.cancelled == [0]


def test_engine_failure_in_a_stream_is_an_error_event(site: Site) -> None:
    site.engine.fails_after = 2
    response = site.client.post("/v1/completions", json={"model": "m", "prompt": "x", "stream": True})
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["error"]["code"] == "engine_error"
    assert [json.loads(event)["choices"][0]["text"] for event in events[:-2]] == ["h", "e"]


def test_stream_is_server_sent_events(site: Site) -> None:
    response = site.client.post("/v1/chat/completions", json=CHAT | {"stream": True, "n": None, "stop": None})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    assert all(block.startswith("data: ") for block in response.text.rstrip().split("\n\n"))


def test_beginning_of_a_stop_string_at_the_end_is_part_of_the_answer(site: Site) -> None:
    answer = site.client.post("/v1/chat/completions", json=CHAT | {"stop": "lox"}).json()["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == ("hello", "length")


def test_choice_that_fails_cancels_the_others(site: Site) -> None:
    submit = site.engine.submit

    def first_fails(job: Any) -> Any:
        site.engine.fails_after, site.engine.holds = (None, True) if site.engine.jobs else (1, False)
        return submit(job)

    site.engine.submit = first_fails
    site.error(site.client.post("/v1/chat/completions", json=CHAT | {"n": 2}), 500)
    assert site.engine.cancelled == [1]


def test_parts_of_a_message_are_joined(site: Site) -> None:
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    site.client.post("/v1/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": content}]})
    assert bytes(site.engine.jobs[0].prompt) == b"user:ab\n"


def test_draining_refuses_requests_and_readiness_but_lives(site: Site) -> None:
    site.health.draining = True
    assert site.error(site.client.post("/v1/chat/completions", json=CHAT), 503)["code"] == "server_stopping"
    assert site.client.get("/readyz").status_code == 503
    assert site.client.get("/livez").status_code == 200


def test_answers_say_which_generation_they_are_from(site: Site) -> None:
    for path, body in (
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"model": "m", "prompt": "x"}),
        ("/chat", {"prompt": "x"}),
    ):
        for stream in (False, True):
            response = site.client.post(path, json=body | {"stream": stream})
            assert response.headers["x-kaito-generation"] == "7"
            assert ('"system_fingerprint":"generation-7"' in response.text) == (path != "/chat")
    assert {card["id"]: card["generation"] for card in site.client.get("/v1/models").json()["data"]} == {
        "m": 7,
        "base": 7,
        "a": 7,
    }


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_cancels_its_request(site: Site, stream: bool) -> None:
    """Spoken in ASGI, since test clients do not hang up."""
    site.engine.holds = True

    async def run() -> None:
        body = json.dumps(CHAT | {"stream": stream}).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if messages:
                return messages.pop()
            while not site.engine.jobs:  # noqa: ASYNC110
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": [(b"content-type", b"application/json")],
            "query_string": b"",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        await asyncio.wait_for(site.app(scope, receive, send), 10)

    asyncio.run(run())
    assert site.engine.cancelled == [0]


@pytest.mark.parametrize(
    ("shape", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "object", "x": 1}}}, {"type": "object", "x": 1}),
    ],
)
def test_response_format_reaches_the_engine(site: Site, shape: Any, schema: Any) -> None:
    for path, more in (("/v1/chat/completions", CHAT), ("/v1/completions", {"model": "m", "prompt": "a"})):
        assert site.client.post(path, json={**more, "response_format": shape}).status_code == 200
        grammar = site.engine.jobs[-1].sampling.grammar
        assert (None if grammar is None else grammar.form.value) == schema


def test_request_beyond_its_time_limit_is_408_and_cancelled(tmp_path: Path) -> None:
    site = Site(tmp_path, request_seconds=0.05)
    assert site.client.post("/v1/chat/completions", json=CHAT).status_code == 200
    site.engine.holds = True
    error = site.error(site.client.post("/v1/chat/completions", json=CHAT), 408)
    assert (error["code"], site.engine.cancelled) == ("deadline_exceeded", [1])
    events = site.client.post("/v1/chat/completions", json={**CHAT, "stream": True}).text.strip().split("\n\n")
    assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    assert events[-1] == "data: [DONE]"
    assert site.engine.cancelled == [1, 2]


def test_every_response_has_the_id_of_its_request(site: Site) -> None:
    for path, status in (("/v1/models", 200), ("/nothing", 404), ("/livez", 200)):
        response = site.client.get(path)
        assert response.status_code == status
        assert response.headers["x-request-id"].startswith("req_")
        assert int(response.headers["openai-processing-ms"]) >= 0
    assert site.client.get("/livez", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert site.client.get("/livez", headers={"x-request-id": "x" * 200}).headers["x-request-id"].startswith("req_")


def test_browsers_of_other_origins_are_let_in_only_where_they_are_named(tmp_path: Path) -> None:
    asked = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    closed = Site(tmp_path / "closed")
    assert "access-control-allow-origin" not in closed.client.get("/v1/models", headers=asked).headers
    opened = Site(tmp_path / "open", cors_origins=["https://chat.example"], api_key="secret")
    preflight = opened.client.options("/v1/chat/completions", headers=asked)
    assert preflight.headers["access-control-allow-origin"] == "https://chat.example"
    refused = opened.client.post("/v1/chat/completions", json=CHAT, headers={"origin": "https://chat.example"})
    assert opened.error(refused, 401)["code"] == "invalid_api_key"
    assert refused.headers["access-control-allow-origin"] == "https://chat.example"
    other = opened.client.options("/v1/chat/completions", headers=asked | {"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_requests_that_say_nothing_get_what_the_models_maker_set(site: Site) -> None:
    site.engine.default_sampling = Sampling(temperature=0.6, top_p=0.9, top_k=20, repetition_penalty=1.1)
    site.client.post("/v1/chat/completions", json=CHAT | {"top_k": -1, "temperature": 1})
    sampling = site.engine.jobs[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.repetition_penalty) == (1, 0.9, 0, 1.1)
