"""No request gets a 5xx, and every error has a body that clients understand."""

import json
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito_runtime.http.admin import LoadRequest, UnloadRequest
from kaito_runtime.http.tokens import DetokenizeRequest, TokenizeRequest
from kaito_runtime.http.upstream import UpstreamRequest
from kaito_runtime.openai.requests import ChatRequest, CompletionRequest
from kaito_runtime.openai.responses import ResponsesRequest

TEXT = st.text(st.characters(exclude_categories=()))  # with halves of surrogate pairs, which JSON can escape
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
GOOD: dict[str, Any] = {
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"model": "m", "prompt": "hi"},
    "/v1/responses": {"model": "m", "input": "hi"},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [104]},
    "/chat": {"prompt": "hi"},
    "/v1/load_lora_adapter": {"lora_name": "a", "lora_path": "a"},
    "/v1/unload_lora_adapter": {"lora_name": "a"},
}
JSON_TYPE = {"content-type": "application/json", "authorization": "Bearer token"}
FIELDS = {
    "/v1/chat/completions": sorted(ChatRequest.model_fields),
    "/v1/completions": sorted(CompletionRequest.model_fields),
    "/v1/responses": sorted(ResponsesRequest.model_fields),
    "/tokenize": sorted(TokenizeRequest.model_fields),
    "/detokenize": sorted(DetokenizeRequest.model_fields),
    "/chat": sorted(UpstreamRequest.model_fields),
    "/v1/load_lora_adapter": sorted(LoadRequest.model_fields),
    "/v1/unload_lora_adapter": sorted(UnloadRequest.model_fields),
}


@pytest.fixture(scope="module")
def client(application: FastAPI) -> TestClient:
    return TestClient(application)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(sorted(GOOD)).flatmap(lambda path: st.tuples(st.just(path), st.sampled_from(FIELDS[path]))), JSON
)
def test_any_value_in_any_field(client: TestClient, where: tuple[str, str], value: Any) -> None:
    path, field = where
    body = json.dumps(GOOD[path] | {field: value})
    response = client.post(path, content=body, headers=JSON_TYPE)
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        assert response.json()["error"]["message"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.binary(max_size=40))
def test_any_body(client: TestClient, path: str, body: bytes) -> None:
    response = client.post(path, content=body, headers=JSON_TYPE)
    assert 400 <= response.status_code < 500
    assert response.json()["error"]["message"]
