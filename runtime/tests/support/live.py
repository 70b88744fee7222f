"""A real server on a real port, in a thread of this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from kaito_core.api.serving import ServingConfig
from kaito_runtime.build import build_engine
from kaito_runtime.config import ConfigFile
from kaito_runtime.options import ServeOptions
from kaito_runtime.serve import Server

WAIT_SECONDS = 120.0  # several processes may load on one busy core


@dataclass(frozen=True)
class Live:
    """A server that is ready."""

    url: str
    server: Server
    engine: Any

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=WAIT_SECONDS, **options)


def until(what: Any, message: str) -> Any:
    """Waits until a function returns something true, and returns it."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if result := what():
            return result
        time.sleep(0.02)
    raise AssertionError(f"still not: {message}")


@contextmanager
def serving(model: Path, source: ServingConfig | ConfigFile, **options: Any) -> Iterator[Live]:
    """Serves a model until the block ends, by a configuration that stays or by a file that may change."""
    config_file = source if isinstance(source, ConfigFile) else None
    config = source.read() if isinstance(source, ConfigFile) else source
    assert config is not None
    chosen = ServeOptions(model=model, port=0, cache_gib=options.pop("cache_gib", 0.02), **options)
    engine, codec = build_engine(config, chosen)
    server = Server(engine, codec, config, chosen, config_file)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started and server.health.warm, "ready")
        yield Live(f"http://127.0.0.1:{server.port}", server, engine)
    finally:
        server.should_exit = True
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
