"""Routes, errors and streams over an engine in memory."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes import ByteCodec, FakeEngine, write_adapter
from fastapi.testclient import TestClient

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.errors import RequestError
from kaito_runtime.http.app import create_app
from kaito_runtime.http.health import Health

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


class Site:
    """One application and what is behind it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.engine: Any = FakeEngine(broken={"bad": "no such tensor"})
        config = ServingConfig.model_validate(
            {
                "generation": 7,
                "model": {"name": "m"},
                "adapters": [{"name": "a", "strength": 0.5}, {"name": "bad", "strength": 0}],
            }
        )
        for name in ("a", "bad"):
            write_adapter(folder / name)
        self.residents = AdapterManager(self.engine, config, adapters_dir=folder)
        asyncio.run(self.residents.refresh())
        self.health = Health(self.engine, self.residents, warm=True)
        self.app = create_app(self.engine, ByteCodec(), self.residents, self.health, **options)
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def error(self, response: httpx.Response, status: int) -> dict[str, Any]:
        assert response.status_code == status, response.text
        body = response.json()
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return dict(body["error"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path)


@pytest.mark.parametrize("body", [b"", b"{", b"[1", b"\xff\xfe", b'{"model": nan}'])
def test_malformed_json_is_400(site: Site, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/chat"):
        response = site.client.post(path, content=body, headers={"content-type": "application/json"})
        assert site.error(response, 400)["type"] == "invalid_request_error"


DEEP = b"[" * 100_000
WRITTEN: dict[str, bytes] = {
    "nested": DEEP,
    "nested and closed": DEEP + b"]" * 100_000,
    "nested in a field that is ignored": b'{"model": "m", "prompt": "a", "x": ' + DEEP + b"]" * 100_000 + b"}",
    "nested in a field": b'{"model": "m", "prompt": "a", "adapters": ' + DEEP + b"]" * 100_000 + b"}",
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "not a number": b'{"model": "m", "prompt": "a", "temperature": NaN}',
    "not a number among adapters": b'{"model": "m", "prompt": "a", "adapters": [{"name": "a", "strength": NaN}]}',
    "not a number as adapter": b'{"model": "m", "prompt": "a", "adapters": [NaN]}',
    "not a number as bias": b'{"model": "m", "prompt": "a", "logit_bias": {"1": NaN}}',
    "infinite": b'{"model": "m", "prompt": "a", "top_p": -Infinity}',
    "a million digits": b'{"model": "m", "prompt": "a", "max_tokens": ' + b"9" * 1_000_000 + b"}",
    "bytes that are no text": b'{"model": "m", "prompt": "\xff\xfe"}',
    "half a character as prompt": b'{"model": "m", "prompt": "\\ud800"}',
    "half a character as model": b'{"model": "\\ud800", "prompt": "a"}',
    "half a character as adapter": b'{"model": "m", "prompt": "a", "adapters": [{"name": "\\ud800"}]}',
    "half a character as adapter's key": b'{"model": "m", "prompt": "a", "adapters": [{"name": "a", "\\ud800": 1}]}',
    "half a character as strength": b'{"model": "m", "prompt": "", "adapters": [{"name": "a", "strength": "\\ud800"}]}',
    "half a character as stop": b'{"model": "m", "prompt": "a", "stop": "\\ud800"}',
    "half a character as bias": b'{"model": "m", "prompt": "a", "logit_bias": {"\\ud800": 1}}',
    "half a character as shape": b'{"model": "m", "prompt": "a", "response_format": {"type": "\\ud800"}}',
    "an adapter twice": b'{"model": "m", "prompt": "a", "adapters": [{"name": "a"}, {"name": "a"}]}',
    "a strength out of range": b'{"model": "m", "prompt": "a", "adapters": [{"name": "a", "strength": -10.01}]}',
}


@pytest.mark.parametrize("body", WRITTEN.values(), ids=WRITTEN)
def test_body_that_no_library_would_write_is_400(site: Site, body: bytes) -> None:
    response = site.client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    message = site.error(response, 400)["message"]
    assert 0 < len(message) < 2000
    assert not site.engine.jobs
    assert site.client.post("/v1/completions", json={"model": "m", "prompt": "a"}).status_code == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": 1, "content": "hi"}]}, "messages[0].role"),
        ({"model": None}, "model"),
        ({"n": 0}, "n"),
        ({"n": 10**30}, "n"),
        ({"n": "2"}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"seed": 10**40}, "seed"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"256": 1}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"adapters": "a"}, "adapters"),
        ({"adapters": [{"name": "a", "strength": "x"}]}, "adapters[0].strength"),
        ({"stream": "yes"}, "stream"),
        ({"adapters": [{"name": "a", "strength": 10.001}]}, "adapters[0].strength"),
        ({"adapters": [{"name": "a", "strength": "-inf"}]}, "adapters[0].strength"),
        ({"adapters": [{"name": "a"}, {"name": "a", "strength": 0}]}, "adapters[1].name"),
        ({"adapters": [{"name": 1}]}, "adapters[0]"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": -(10**30)}, "max_tokens"),
        ({"seed": -(10**40)}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"stop": [1]}, "stop"),
        ({"stop": {"a": 1}}, "stop"),
        ({"stream_options": True}, "stream_options"),
    ],
)
def test_bad_field_is_400_and_named(site: Site, change: dict[str, Any], param: str) -> None:
    error = site.error(site.client.post("/v1/chat/completions", json=CHAT | change), 400)
    assert (error["param"] or "").startswith(param)
    assert not site.engine.jobs


@pytest.mark.parametrize(
    ("adapters", "message"),
    [
        (
            [{"name": "a"}, {"name": "bad", "strength": "NaN"}],
            "adapters[1].strength must be a finite number, got 'NaN'",
        ),
        ([{"name": "a", "strength": 11}], "adapters[0].strength must be between -10 and 10, got 11"),
        (
            [{"name": "a", "strength": None}],
            "adapters[0].strength must be a number or a string with a number, got nothing",
        ),
        (
            [{"name": "a", "strength": True}],
            "adapters[0].strength must be a number or a string with a number, got True",
        ),
        ([{"name": "a", "strength": "1e1"}], "adapters[0].strength must be plain decimal notation such as"),
        ([{"name": "a", "weight": 1}], "adapters[0] has the unknown field 'weight', known: name, strength"),
        (["a"], """adapters[0] must be {"name": ..., "strength": ...}, got 'a'"""),
        ([{"strength": 1}], "adapters[0].name is required"),
        ([{"name": 1}], "adapters[0].name must be a string, got 1"),
        ([{"name": "a"}, {"name": "a", "strength": 0}], "adapters[1].name: duplicate adapter 'a'"),
        ("a", "adapters"),
    ],
)
def test_bad_adapters_of_a_request_say_which_field_and_value(site: Site, adapters: Any, message: str) -> None:
    error = site.error(site.client.post("/v1/chat/completions", json=CHAT | {"adapters": adapters}), 400)
    assert error["message"].startswith(message)
    assert message.startswith(error["param"])
    assert not site.engine.jobs


@pytest.mark.parametrize(
    ("written", "strength"), [("0.5", 0.5), ("5e-1", 0.5), (".5", 0.5), (-2, -2.0), ("+010.0", 10.0)]
)
def test_strengths_of_a_request_are_numbers_or_decimal_text(site: Site, written: Any, strength: float) -> None:
    body = CHAT | {"adapters": [{"name": "a", "strength": written}]}
    assert site.client.post("/v1/chat/completions", json=body).status_code == 200
    assert list(site.engine.jobs[0].strengths.values()) == [strength]


@pytest.mark.parametrize("prompt", ["", [], [[]], [300], [-1], [1, "a"], None, {"a": 1}, 5])
def test_bad_prompt_is_400(site: Site, prompt: Any) -> None:
    error = site.error(site.client.post("/v1/completions", json={"model": "m", "prompt": prompt}), 400)
    assert error["param"].startswith("prompt")


def test_more_prompts_than_anybody_may_ask_at_once_are_400(site: Site) -> None:
    body = {"model": "m", "prompt": ["a"] * 1025}
    assert (
        "prompt must have at most 1024 entries, got 1025"
        in site.error(site.client.post("/v1/completions", json=body), 400)["message"]
    )
    assert not site.engine.jobs


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
        def encode(self, text: str) -> list[int]:
            reading.set()
            waited.append(answered.wait(10))
            return super().encode(text)

    async def run() -> tuple[int, int]:
        app = create_app(site.engine, Slow(), site.residents, site.health)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            asked = asyncio.create_task(client.post(path, json=body))
            while not reading.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0)
            probe = await client.get("/livez")
            answered.set()
            return probe.status_code, (await asked).status_code

    assert asyncio.run(run()) == (200, 400)  # it is longer than the context, which only its tokens tell
    assert set(waited) == {True}


def test_body_that_is_no_object_is_400(site: Site) -> None:
    for body in ([], "x", 3, None):
        site.error(site.client.post("/v1/completions", json=body), 400)


def test_unknown_routes_and_methods_have_error_bodies(site: Site) -> None:
    assert site.error(site.client.get("/v1/nothing"), 404)["code"] == "not_found"
    response = site.client.get("/v1/chat/completions")
    assert site.error(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"


def test_failed_adapter_is_404_with_its_reason(site: Site) -> None:
    error = site.error(site.client.post("/v1/chat/completions", json=CHAT | {"model": "bad"}), 404)
    assert error["code"] == "adapter_failed"
    assert "no such tensor" in error["message"]
    assert [card["id"] for card in site.client.get("/v1/models").json()["data"]] == ["m", "base", "a"]


def test_full_queue_is_429_with_retry_after(site: Site) -> None:
    site.engine.error = RequestError("full", status=429, code="queue_full", retry_after_seconds=3)
    for stream in (False, True):
        response = site.client.post("/v1/chat/completions", json=CHAT | {"stream": stream})
        assert site.error(response, 429)["type"] == "rate_limit_error"
        assert response.headers["retry-after"] == "3"


def test_choices_that_do_not_fit_the_queue_cancel_those_that_did(site: Site) -> None:
    submit = site.engine.submit

    def second_fails(job: Any) -> Any:
        if site.engine.jobs:
            raise RequestError("full", status=429, code="queue_full")
        return submit(job)

    site.engine.submit = second_fails
    site.error(site.client.post("/v1/chat/completions", json=CHAT | {"n": 2}), 429)
    assert site.engine.cancelled == [0]


def test_engine_failure_is_500(site: Site) -> None:
    site.engine.fails_after = 2
    error = site.error(site.client.post("/v1/chat/completions", json=CHAT), 500)
    assert (error["type"], error["code"]) == ("server_error", "engine_error")


def test_engine_failure_in_a_stream_is_an_error_event(site: Site) -> None:
    site.engine.fails_after = 2
    response = site.client.post("/v1/completions", json={"model": "m", "prompt": "x", "stream": True})
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["error"]["code"] == "engine_error"
    assert [json.loads(event)["choices"][0]["text"] for event in events[:-2]] == ["h", "e"]


def test_bug_is_500_without_its_details(site: Site) -> None:
    site.engine.error = ValueError("secret")
    error = site.error(site.client.post("/v1/chat/completions", json=CHAT), 500)
    assert error["message"] == "internal error"


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


def test_readiness_says_what_is_missing(site: Site) -> None:
    assert site.client.get("/readyz").text == site.client.get("/health").text == "ok"
    site.engine.failures_in_a_row = 1
    assert site.client.get("/readyz").status_code == 200
    site.engine.failures_in_a_row = 2
    assert site.client.get("/readyz").text == "the last 2 forward passes failed"
    site.health.warm = False
    assert site.client.get("/readyz").text == "the model is warming up"
    site.health.complete = site.residents.settled = False
    assert site.client.get("/readyz").text == "adapters are being loaded"
    site.engine.alive = False
    assert site.client.get("/livez").text == site.client.get("/healthz").text == "the engine has stopped"


def test_adapters_say_what_is_applied(site: Site) -> None:
    assert site.client.get("/v1/adapters").json() == {
        "object": "list",
        "generation": 7,
        "serving_generation": 7,
        "model": "m",
        "error": "",
        "data": [
            {"name": "a", "digest": "sha256:found", "strength": 0.5, "state": "Ready", "message": ""},
            {"name": "bad", "digest": None, "strength": 0.0, "state": "Failed", "message": "no such tensor"},
        ],
        "loaded_by_request": [],
    }


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


def test_metrics_count_requests_and_tokens(site: Site) -> None:
    site.client.post("/v1/chat/completions", json=CHAT)
    site.client.post("/v1/chat/completions", json=CHAT | {"model": "missing"})
    text = site.client.get("/metrics").text
    for line in (
        'vllm:num_requests_running{model_name="m"} 0.0',
        'vllm:num_requests_waiting{model_name="m"} 0.0',
        'vllm:kv_cache_usage_perc{model_name="m"} 0.0',
        'vllm:gpu_cache_usage_perc{model_name="m"} 0.0',
        'vllm:lora_requests_info{max_lora="2",running_lora_adapters="",waiting_lora_adapters=""}',
        'vllm:generation_tokens_total{model_name="m"} 5.0',
        'vllm:prompt_tokens_total{model_name="m"} 8.0',
        'vllm:time_to_first_token_seconds_count{model_name="m"} 1.0',
        'vllm:time_per_output_token_seconds_count{model_name="m"} 4.0',
        'kaito_requests_total{model="m"} 1.0',
        'kaito_adapter_requests_total{adapter="a"} 1.0',
        'kaito_requests_refused_total{code="model_not_found"} 1.0',
        'kaito_adapter_strength{adapter="a"} 0.5',
        'kaito_adapter_state{adapter="bad",state="Failed"} 1.0',
        "kaito_configuration_generation 7.0",
        "kaito_serving_generation 7.0",
    ):
        assert line in text


def test_api_is_described(site: Site) -> None:
    paths = site.client.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/adapters", "/chat"} <= set(paths)
    assert site.client.get("/version").json()["version"]


def test_key_is_needed_everywhere_but_on_probes(tmp_path: Path) -> None:
    site = Site(tmp_path, api_key="secret")
    for path in ("/v1/models", "/v1/adapters", "/metrics", "/version", "/docs", "/nothing"):
        assert site.error(site.client.get(path), 401)["type"] == "authentication_error"
    wrong = {"authorization": "Bearer wrong"}
    site.error(site.client.post("/v1/chat/completions", json=CHAT, headers=wrong), 401)
    good = {"authorization": "Bearer secret"}
    assert site.client.post("/v1/chat/completions", json=CHAT, headers=good).status_code == 200
    assert all(site.client.get(path).status_code == 200 for path in ("/health", "/healthz", "/livez", "/readyz"))


OPEN = {"/", "/health", "/healthz", "/livez", "/readyz"}


def test_no_route_is_forgotten_by_the_key(tmp_path: Path) -> None:
    site = Site(tmp_path, api_key="secret", admin_token="other")
    routes = [(route.path, method) for route in site.app.routes for method in route.methods]
    assert len(routes) > 20
    for path, method in routes:
        refused = site.client.request(method, path.replace("{model_id:path}", "m")).status_code == 401
        assert refused is (path not in OPEN), (method, path)


def test_large_body_is_413_whether_announced_or_not(site: Site) -> None:
    body = b'{"model": "m", "prompt": "' + b"x" * (9 << 20) + b'"}'
    json_type = {"content-type": "application/json"}
    site.error(site.client.post("/v1/completions", content=body, headers=json_type), 413)
    chunks = iter([body[i : i + (1 << 20)] for i in range(0, len(body), 1 << 20)])
    site.error(site.client.post("/v1/completions", content=chunks, headers=json_type), 413)
    assert not site.engine.jobs


def test_upstream_chat_takes_prompts_and_messages(site: Site) -> None:
    options = {"generate_kwargs": {"max_length": 4, "do_sample": False, "num_beams": 3}}
    assert site.client.post("/chat", json={"prompt": "ab", **options}).json() == {"Result": "abhe"}
    assert site.engine.jobs[0].sampling.temperature == 0
    body = {"messages": CHAT["messages"], "return_full_text": False}
    assert site.client.post("/chat", json=body).json() == {"Result": "hello"}
    assert {version.name for version in site.engine.jobs[0].strengths} == {"a"}


@pytest.mark.parametrize("body", [{}, {"prompt": "a", "messages": CHAT["messages"]}, {"prompt": "abcd"}])
def test_upstream_chat_refuses_what_it_cannot_answer(site: Site, body: dict[str, Any]) -> None:
    site.error(site.client.post("/chat", json={**body, "generate_kwargs": {"max_length": 3}}), 400)
    site.error(site.client.post("/chat", json={**body, "generate_kwargs": {"temperature": 1e9}}), 400)
    assert site.error(site.client.post("/chat", json={"messages": []}), 400)["param"] == "messages"


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
        assert (None if grammar is None else grammar.schema) == schema


def test_request_that_takes_too_long_ends_with_its_engine_told(tmp_path: Path) -> None:
    site = Site(tmp_path, request_seconds=0.05)
    assert site.client.post("/v1/chat/completions", json=CHAT).status_code == 200
    site.engine.holds = True
    error = site.error(site.client.post("/v1/chat/completions", json=CHAT), 408)
    assert (error["code"], site.engine.cancelled) == ("deadline_exceeded", [1])
    events = site.client.post("/v1/chat/completions", json={**CHAT, "stream": True}).text.strip().split("\n\n")
    assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    assert events[-1] == "data: [DONE]"
    assert site.engine.cancelled == [1, 2]


def test_chat_page_is_open_and_the_rest_is_not(tmp_path: Path) -> None:
    site = Site(tmp_path, api_key="sesame")
    assert "<title>kaito-runtime</title>" in site.client.get("/").text
    assert site.client.get("/v1/models").status_code == 401
    assert "/" not in site.app.openapi()["paths"]
