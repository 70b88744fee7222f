"""Each strength is parsed once per process: where its document is read. It is a float from there on."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from fakes import ByteCodec, FakeEngine, write_adapter

from kaito_core.api.serving import ServingConfig
from kaito_core.api.strength import parse_strength
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.config import ConfigFile
from kaito_runtime.http.app import create_app
from kaito_runtime.http.health import Health


@contextmanager
def counted(function: Callable[..., Any]) -> Iterator[list[object]]:
    """Lists the first argument of every call in this thread, whatever name the function is called by."""
    calls: list[object] = []
    code = function.__code__  # type: ignore[attr-defined]

    def trace(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code is code:
            calls.append(frame.f_locals[code.co_varnames[0]])

    sys.setprofile(trace)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def test_each_strength_of_a_request_is_parsed_once(tmp_path: Path) -> None:
    engine: Any = FakeEngine()
    config = ServingConfig.model_validate({"model": {"name": "m"}, "adapters": [{"name": "a"}, {"name": "b"}]})
    for name in ("a", "b"):
        write_adapter(tmp_path / name)
    adapters = AdapterManager(engine, config, adapters_dir=tmp_path)
    app = create_app(engine, ByteCodec(), adapters, Health(engine, adapters, warm=True))
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "adapters": [{"name": "a", "strength": "0.25"}, {"name": "b", "strength": -2}],
    }

    async def ask() -> int:
        await adapters.refresh()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return (await client.post("/v1/chat/completions", json=body)).status_code

    with counted(parse_strength) as calls:
        assert asyncio.run(ask()) == 200
    assert calls == ["0.25", -2]
    assert list(engine.jobs[0].strengths.values()) == [0.25, -2.0]


def test_each_strength_of_a_configuration_is_parsed_once_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    body: dict[str, Any] = {
        "model": {"name": "m"},
        "adapters": [{"name": "a", "strength": "0.5"}, {"name": "b", "strength": 2}, {"name": "c"}],
        "blends": [{"name": "x", "strengths": {"a": "-1"}}],
    }
    path.write_text(json.dumps(body))
    engine: Any = FakeEngine()
    with counted(parse_strength) as calls:
        file = ConfigFile(path)
        config = file.read()
        assert config is not None
        adapters = AdapterManager(engine, config, adapters_dir=tmp_path, config_file=file)
        for _ in range(2):
            asyncio.run(adapters.refresh())
    assert calls == ["0.5", 2, "-1"]

    path.write_text(json.dumps(body | {"adapters": [{"name": "a", "strength": 0.25}], "blends": []}))
    with counted(parse_strength) as calls:
        for _ in range(2):
            asyncio.run(adapters.refresh())
    assert calls == [0.25]
    assert adapters.catalog.declared == {"a": 0.25}
