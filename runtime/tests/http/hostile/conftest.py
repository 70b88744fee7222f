"""The application that bad requests are sent to: one model, no adapters, with the routes of administration."""

import asyncio
from typing import Any

import pytest
from fakes import ByteCodec, FakeEngine
from fastapi import FastAPI

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.http.app import create_app
from kaito_runtime.http.health import Health


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    engine: Any = FakeEngine(context_length=1000)
    folder = tmp_path_factory.mktemp("adapters")
    manager = AdapterManager(engine, ServingConfig.model_validate({"model": {"name": "m"}}), adapters_dir=folder)
    asyncio.run(manager.refresh())
    return create_app(engine, ByteCodec(), manager, Health(engine, manager, warm=True), admin_token="token")
