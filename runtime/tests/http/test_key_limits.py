"""What each API key may ask for in a minute, and how it is counted."""

from pathlib import Path
from typing import Any

import pytest
from site_in_memory import CHAT, Site

from kaito_runtime.errors import RequestError
from kaito_runtime.http.key_limits import KeyLimits
from kaito_runtime.keys import ApiKeys

ALICE, BOB = {"authorization": "Bearer one"}, {"authorization": "Bearer two"}
KEYS = ApiKeys({"alice": "one", "bob": "two"})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(site: Site, key: dict[str, str], **fields: Any) -> Any:
    return site.client.post("/v1/chat/completions", json=CHAT | fields, headers=key)


def test_requests_above_the_limit_are_429_with_the_time_to_wait(tmp_path: Path) -> None:
    clock = Clock()
    site = Site(tmp_path, api_keys=KEYS, limits=KeyLimits(requests=2, clock=clock))
    assert [ask(site, ALICE).status_code for _ in range(2)] == [200, 200]
    refused = ask(site, ALICE)
    assert site.error(refused, 429)["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "rate_limit_error" and refused.headers["retry-after"] == "30"
    assert ask(site, BOB).status_code == 200, "every key has its own limit"
    assert site.client.get("/v1/models", headers=ALICE).status_code == 200, "what sends no body is free"
    clock.now += 30
    assert ask(site, ALICE).status_code == 200
    assert (
        'kaito_requests_refused_total{code="rate_limit_exceeded"} 1.0' in site.client.get("/metrics", headers=BOB).text
    )


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_prompts_and_answers_count(tmp_path: Path, stream: bool) -> None:
    clock = Clock()
    site = Site(tmp_path, api_keys=KEYS, limits=KeyLimits(tokens=12, clock=clock))
    assert ask(site, ALICE, stream=stream).status_code == 200  # 8 tokens of the prompt, 5 of the answer
    site.error(ask(site, ALICE), 429)
    clock.now += 60
    assert ask(site, ALICE).status_code == 200
    text = site.client.get("/metrics", headers=BOB).text
    assert 'kaito_key_requests_total{key="alice"} 2.0' in text
    assert 'kaito_key_tokens_total{key="alice"} 26.0' in text


def test_without_limits_or_keys_nothing_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path, api_keys=KEYS)
    assert {ask(site, ALICE).status_code for _ in range(20)} == {200}
    with pytest.raises(RequestError):
        limits = KeyLimits(requests=1)
        limits.check("a")
        limits.check("a")


def test_keys_that_cannot_be_read_again_are_reported(tmp_path: Path) -> None:
    keys = ApiKeys({"alice": "one"})
    keys.error = "gone"
    assert "kaito_api_keys_stale 1.0" in Site(tmp_path, api_keys=keys).client.get("/metrics", headers=ALICE).text
