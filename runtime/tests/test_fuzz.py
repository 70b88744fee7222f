"""Whatever arrives, the answer is no 5xx and has a body that clients understand."""

import asyncio
from typing import Any

import pytest
from fakes import ByteCodec, FakeEngine
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito_core.api.serving import ServingConfig
from kaito_runtime.app import create_app
from kaito_runtime.health import Health
from kaito_runtime.openai import ChatRequest, CompletionRequest
from kaito_runtime.residents import Residents
from kaito_runtime.upstream import UpstreamRequest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
GOOD: dict[str, Any] = {
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"model": "m", "prompt": "hi"},
    "/chat": {"prompt": "hi"},
}
FIELDS = {
    "/v1/chat/completions": sorted(ChatRequest.model_fields),
    "/v1/completions": sorted(CompletionRequest.model_fields),
    "/chat": sorted(UpstreamRequest.model_fields),
}


@pytest.fixture(scope="module")
def client() -> TestClient:
    engine: Any = FakeEngine(context_length=1000)
    residents = Residents(engine, ServingConfig.model_validate({"model": {"name": "m"}}))
    asyncio.run(residents.refresh())
    return TestClient(create_app(engine, ByteCodec(), residents, Health(engine, residents, warm=True)))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(GOOD)).flatmap(lambda path: st.tuples(st.just(path), st.sampled_from(FIELDS[path]))), JSON
)
def test_any_value_in_any_field(client: TestClient, where: tuple[str, str], value: Any) -> None:
    path, field = where
    response = client.post(path, json=GOOD[path] | {field: value})
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.binary(max_size=40))
def test_any_body(client: TestClient, path: str, body: bytes) -> None:
    response = client.post(path, content=body, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["message"]
