"""Routes that report: adapters, plugins, readiness."""

import sys
from types import ModuleType
from typing import Any

import pytest
from fakes import ByteCodec, FakeEngine
from fastapi.testclient import TestClient
from importlib_metadata import EntryPoint
from site_in_memory import Site

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.http.app import create_app
from kaito_runtime.http.health import Health
from kaito_runtime.http.status import plugins_body
from kaito_runtime.model.recipe import PROJECT, Recipe
from kaito_runtime.model.recipes import find_recipes

TAKEN = "the recipe 'one' is provided by a and by d: uninstall one, or deny it with KAITO_PLUGINS_DENY"


def entry(monkeypatch: pytest.MonkeyPatch, name: str, recipe: str) -> EntryPoint:
    """An entry point of a module that offers one recipe, or whose hook fails where `recipe` is ""."""
    module = ModuleType(f"recipes_of_{name}")
    vars(module)["kaito_runtime_recipes"] = lambda: [Recipe(recipe)] if recipe else 1 / 0
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return EntryPoint(name, module.__name__, PROJECT)


def test_working_and_broken_packages_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry(monkeypatch, *pair) for pair in (("b", "two"), ("a", "one"), ("c", ""), ("d", "one"))]
    body = plugins_body(find_recipes(entries))
    assert [(row["name"], row["state"], row["recipes"], row["error"]) for row in body["data"]] == [
        ("a", "loaded", ["one"], ""),
        ("b", "loaded", ["two"], ""),
        ("c", "failed", [], "ZeroDivisionError: division by zero"),
        (
            "d",
            "failed",
            [],
            "the recipe 'one' is provided by a and by d: uninstall one, or deny it with KAITO_PLUGINS_DENY",
        ),
    ]


def test_installed_packages_are_listed_with_their_distribution() -> None:
    rows = {row["name"]: row for row in plugins_body()["data"]}
    assert rows["falcon"]["distribution"].startswith("kaito-falcon ")
    assert rows["falcon"]["recipes"] == ["falcon"]


def test_the_route_lists_the_same() -> None:
    engine: Any = FakeEngine()
    manager = AdapterManager(engine, ServingConfig.model_validate({"model": {"name": "m"}}))
    app = create_app(engine, ByteCodec(), manager, Health(engine, manager, warm=True))
    answer = TestClient(app).get("/v1/plugins")
    assert answer.status_code == 200
    assert answer.json() == plugins_body()


def test_readiness_says_what_is_missing(site: Site) -> None:
    assert site.client.get("/readyz").text == site.client.get("/health").text == "ok"
    site.engine.failures_in_a_row = 1
    assert site.client.get("/readyz").status_code == 200
    site.engine.failures_in_a_row = 2
    assert site.client.get("/readyz").text == "the last 2 forward passes failed"
    site.health.warm = False
    assert site.client.get("/readyz").text == "the model is warming up"
    site.health.complete = site.manager.settled = False
    assert site.client.get("/readyz").text == "adapters are being loaded"
    site.engine.alive = False
    assert site.client.get("/livez").text == site.client.get("/healthz").text == "the engine has stopped"


@pytest.mark.parametrize("path", ["/health", "/readyz", "/healthz", "/livez"])
def test_probes_may_ask_for_the_head_alone(site: Site, path: str) -> None:
    assert site.client.head(path).status_code == 200
    site.engine.alive = False
    assert site.client.head(path).status_code == 503


def test_adapters_are_listed_in_llama_cpps_words(site: Site) -> None:
    listed = [{"id": 0, "path": "a", "scale": 0.5}, {"id": 1, "path": "bad", "scale": 0.0}]
    assert site.client.get("/lora-adapters").json() == listed


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


def test_api_is_described(site: Site) -> None:
    paths = site.client.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/adapters", "/chat"} <= set(paths)
    assert site.client.get("/version").json()["version"]
