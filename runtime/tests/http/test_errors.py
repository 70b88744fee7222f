"""Error responses: their status, their OpenAI body, and the field that they name."""

from typing import Any

import pytest
from site_in_memory import CHAT, Site

from kaito_runtime.errors import RequestError


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
    "bytes that are not text": b'{"model": "m", "prompt": "\xff\xfe"}',
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
        ({"tools": [{"type": "function", "function": {"name": "f f"}}]}, "tools[0].function.name"),
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


def test_body_that_is_not_an_object_is_400(site: Site) -> None:
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
    site.engine.error = RequestError("full", status=429, code="rate_limit_exceeded", retry_after_seconds=3)
    for stream in (False, True):
        response = site.client.post("/v1/chat/completions", json=CHAT | {"stream": stream})
        assert site.error(response, 429)["type"] == "rate_limit_error"
        assert response.headers["retry-after"] == "3"


def test_engine_failure_is_500(site: Site) -> None:
    site.engine.fails_after = 2
    error = site.error(site.client.post("/v1/chat/completions", json=CHAT), 500)
    assert (error["type"], error["code"]) == ("server_error", "engine_error")


def test_bug_is_500_without_its_details(site: Site) -> None:
    site.engine.error = ValueError("secret")
    error = site.error(site.client.post("/v1/chat/completions", json=CHAT), 500)
    assert error["message"] == "internal error"
