"""The published description: whatever it allows, and whatever breaks it, is answered without a 5xx."""

import contextlib
import re
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from kaito_runtime.http.status import plugins_body

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")


@pytest.fixture(scope="module")
def described(application: FastAPI) -> Any:
    plugins_body()  # the first call imports torch and transformers, longer than schemathesis waits on a busy machine
    return schemathesis.openapi.from_asgi("/openapi.json", application)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_no_request_is_answered_with_a_server_error(described: Any, mode: Any) -> None:
    answered = set()
    for operation in (result.ok() for result in described.get_all_operations()):

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            response = case.call(headers={"authorization": "Bearer token"})
            answered.add(response.status_code)
            assert response.status_code < 500, response.text
            if response.status_code >= 400:
                assert response.json()["error"]["message"]

        # An operation that takes nothing cannot be asked wrongly.
        with contextlib.suppress(Unsatisfiable):
            ask()
    assert answered & {200, 400}


def test_every_route_is_described(described: Any) -> None:
    paths = {operation.ok().path for operation in described.get_all_operations()}
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/adapters", "/chat", "/metrics"} <= paths
    assert {"/v1/responses", "/tokenize", "/detokenize"} <= paths
    assert {"/v1/load_lora_adapter", "/v1/unload_lora_adapter"} <= paths


def test_adapters_of_a_request_are_described_with_the_bounds_of_their_strengths(described: Any) -> None:
    schemas = described.raw_schema["components"]["schemas"]
    for request in ("ChatRequest", "CompletionRequest"):
        listed = schemas[request]["properties"]["adapters"]["anyOf"][0]
        assert listed == {"type": "array", "items": {"$ref": "#/components/schemas/AdapterChoice"}}
    choice = schemas["AdapterChoice"]
    assert (choice["required"], choice["additionalProperties"]) == (["name"], False)
    number, text = choice["properties"]["strength"]["anyOf"]
    assert number == {"type": "number", "minimum": -10.0, "maximum": 10.0}
    assert re.fullmatch(text["pattern"], "0.5") and not re.fullmatch(text["pattern"], "nan")
