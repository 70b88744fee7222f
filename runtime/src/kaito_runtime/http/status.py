"""Routes that report what is served and how the server is: models, adapters, plugins, version, probes, metrics."""

import time
from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from importlib_metadata import version

from kaito_core.plugins.info import PluginInfo
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.engine.protocol import Engine
from kaito_runtime.http.health import Health
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.model.recipes import Recipes, installed_recipes
from kaito_runtime.openai.replies import model_body

__all__ = ["adapters_body", "add_status_routes", "plugins_body"]


def add_status_routes(app: FastAPI, engine: Engine, adapters: AdapterManager, health: Health, metrics: Metrics) -> None:
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

    @app.get("/lora-adapters")
    async def list_lora_adapters() -> list[dict[str, Any]]:  # llama.cpp's route
        declared = adapters.catalog.declared.items()
        return [{"id": place, "path": name, "scale": scale} for place, (name, scale) in enumerate(declared)]

    @app.get("/v1/plugins")
    def list_plugins() -> dict[str, Any]:  # in a thread: the first call imports packages
        return plugins_body()

    @app.get("/version")
    async def get_version() -> dict[str, str]:
        return {"version": version("kaito-runtime")}

    @app.head("/health", include_in_schema=False)
    @app.head("/readyz", include_in_schema=False)
    @app.get("/health")
    @app.get("/readyz")
    async def ready() -> Response:
        return _probe(health.why_not_ready())

    @app.head("/healthz", include_in_schema=False)
    @app.head("/livez", include_in_schema=False)
    @app.get("/healthz")
    @app.get("/livez")
    async def alive() -> Response:
        return _probe(health.why_dead())

    @app.get("/metrics")
    async def get_metrics() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _probe(trouble: str) -> Response:
    return PlainTextResponse(trouble or "ok", 503 if trouble else 200)


def adapters_body(adapters: AdapterManager) -> dict[str, Any]:
    """Returns the newest configuration and the state of each of its adapters. The operator copies it to a status.

    "serving_generation" is the generation that the default model id answers with, null while it cannot be served.
    """
    catalog = adapters.catalog
    data = []
    for adapter in catalog.config.adapters:
        data.append(_adapter_body(adapters, adapter.name) | {"message": catalog.status(adapter.name).message})
    return {
        "object": "list",
        "generation": catalog.config.generation,
        "serving_generation": catalog.serving_generation,
        "model": catalog.config.model.name,
        "error": adapters.config_error,
        "data": data,
        # Apart: the operator compares `data` with its Workspace, which does not have these.
        "loaded_by_request": [_adapter_body(adapters, name) for name in catalog.guests],
    }


def _adapter_body(adapters: AdapterManager, name: str) -> dict[str, Any]:
    catalog = adapters.catalog
    version = catalog.served_version(name)  # of a replaced adapter, the one before until the new one is ready
    return {
        "name": name,
        "digest": None if version is None else version.digest,
        "strength": catalog.declared[name],
        "state": str(catalog.status(name).state),
    }


def plugins_body(recipes: Recipes | None = None) -> dict[str, Any]:
    """Returns the installed packages that bring recipes, in the fields of `kaito plugins list -o json`.

    Args:
        recipes: What was found; None: what is installed, which the first call imports.
    """
    found = recipes or installed_recipes()
    return {"object": "list", "data": [_plugin_body(info) for info in found.packages]}


def _plugin_body(info: PluginInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "distribution": info.distribution,
        "module": info.module,
        "state": info.state,
        "error": info.error,
        "remarks": list(info.remarks),
        "recipes": list(info.names("recipe")),
    }
