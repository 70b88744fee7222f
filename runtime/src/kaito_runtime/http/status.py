"""Routes that report what is served and how the server is: models, adapters, plugins, version, probes, metrics."""

import time
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response

from kaito_runtime.adapters.manager import Residents
from kaito_runtime.engine.protocol import Engine
from kaito_runtime.http.health import Health
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.model.recipe import DEFAULT_RECIPE, RECIPE_GROUP
from kaito_runtime.model.recipes import find_recipes
from kaito_runtime.openai.replies import model_body

__all__ = ["adapters_body", "add_status_routes", "plugins_body"]


def add_status_routes(app: FastAPI, engine: Engine, adapters: Residents, health: Health, metrics: Metrics) -> None:
    """Adds the routes to `app`."""
    started = int(time.time())

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        cards = adapters.catalog.servable()
        return {"object": "list", "data": [model_body(card, started, engine.context_length) for card in cards]}

    @app.get("/v1/models/{model_id:path}")
    async def get_model(model_id: str) -> dict[str, Any]:
        return model_body(adapters.catalog.card(model_id), started, engine.context_length)

    @app.get("/v1/adapters")
    async def list_adapters() -> dict[str, Any]:
        return adapters_body(adapters)

    @app.get("/v1/plugins")
    def list_plugins() -> dict[str, Any]:  # in a thread: the first call imports packages
        return plugins_body()

    @app.get("/version")
    async def get_version() -> dict[str, str]:
        return {"version": version("kaito-runtime")}

    @app.get("/health")
    @app.get("/readyz")
    async def ready() -> Response:
        return _probe(health.why_not_ready())

    @app.get("/healthz")
    @app.get("/livez")
    async def alive() -> Response:
        return _probe(health.why_dead())

    @app.get("/metrics")
    async def get_metrics() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _probe(trouble: str) -> Response:
    return PlainTextResponse(trouble or "ok", 503 if trouble else 200)


def adapters_body(adapters: Residents) -> dict[str, Any]:
    """Returns the configuration that is applied, and the state of each adapter. The operator copies it to a status."""
    catalog = adapters.catalog
    data = []
    for adapter in catalog.config.adapters:
        data.append(_adapter_body(adapters, adapter.name) | {"message": catalog.status(adapter.name).message})
    return {
        "object": "list",
        "generation": catalog.config.generation,
        "model": catalog.config.model.name,
        "error": adapters.config_error,
        "data": data,
        # Apart: the operator compares `data` with its Workspace, which does not have these.
        "loaded_by_request": [_adapter_body(adapters, name) for name in catalog.guests],
    }


def _adapter_body(adapters: Residents, name: str) -> dict[str, Any]:
    status = adapters.catalog.status(name)
    return {
        "name": name,
        "digest": None if status.version is None else status.version.digest,
        "strength": adapters.catalog.declared[name],
        "state": str(status.state),
    }


def plugins_body(entries: Iterable[EntryPoint] | None = None) -> dict[str, Any]:
    """Returns the installed packages that bring recipes, in the fields of `kaito plugins list -o json`.

    Args:
        entries: Entry points to read instead of the installed ones.
    """
    if entries is None:
        return _installed_plugins()
    found = sorted(entries, key=lambda entry: entry.name)
    failures = find_recipes(found).failures  # all at once: a name may conflict with another package's
    return {"object": "list", "data": [_plugin_body(entry, failures.get(entry.name, "")) for entry in found]}


@cache  # what is installed does not change while a process runs, and a broken package is logged once
def _installed_plugins() -> dict[str, Any]:
    return plugins_body(entry_points(group=RECIPE_GROUP))


def _plugin_body(entry: EntryPoint, error: str) -> dict[str, Any]:
    recipes = [] if error else sorted(set(find_recipes([entry]).known) - {DEFAULT_RECIPE.name})
    return {
        "name": entry.name,
        "distribution": f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "",
        "module": entry.value,
        "state": "failed" if error else "loaded",
        "error": error,
        "recipes": recipes,
    }
