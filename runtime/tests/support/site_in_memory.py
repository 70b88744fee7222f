"""The HTTP application over an engine in memory, for tests of routes."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
from fakes import ByteCodec, FakeEngine, write_adapter
from fastapi.testclient import TestClient

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.http.app import create_app
from kaito_runtime.http.health import Health
from kaito_runtime.keys import ApiKeys

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
        self.manager = AdapterManager(self.engine, config, adapters_dir=folder)
        asyncio.run(self.manager.refresh())
        self.health = Health(self.engine, self.manager, warm=True)
        self.codec = options.pop("codec", None) or ByteCodec()
        if key := options.pop("api_key", None):
            options["api_keys"] = ApiKeys.of(key)
        self.app = create_app(self.engine, self.codec, self.manager, self.health, **options)
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def error(self, response: httpx.Response, status: int) -> dict[str, Any]:
        assert response.status_code == status, response.text
        body = response.json()
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return dict(body["error"])
