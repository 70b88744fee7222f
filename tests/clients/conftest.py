"""Clients of other people against our server: their own environment, made once, and a server with a scripted model.

`make test-clients` runs them. A client whose package cannot be had is skipped with the reason.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_server import scripted_server

CACHE = Path(os.environ.get("KAITO_CLIENTS_CACHE", Path.home() / ".cache" / "kaito-clients"))
INSTALL_SECONDS = 900
NODE_PACKAGES = ("openai@6", "ai@6", "@ai-sdk/openai-compatible@2", "zod@4")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves these tests out unless they are asked for: they need an index of packages, and minutes."""
    if "clients" in config.option.markexpr:
        return
    ours = [item for item in items if item.get_closest_marker("clients")]
    if ours:
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


class Environment:
    """Python and Node with the clients' packages, none of which may disturb ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = folder / "node"
        self._python = folder / "python" / "bin" / "python"
        self._tried: dict[str, str] = {}

    def python(self, package: str) -> Path:
        """Returns a Python that has a package; skips the test where it cannot be installed."""
        if not self._python.exists():
            subprocess.run([sys.executable, "-m", "venv", self._python.parent.parent], check=True)
        wanted = self._python.parent.parent / f"has-{package.replace('/', '-')}"
        if not wanted.exists():
            self._install(package, [self._python, "-m", "pip", "install", "-q", "httpx", package], self.folder)
            wanted.touch()
        return self._python

    def npm(self) -> Path:
        """Returns the folder with Node's packages; skips the test where they cannot be installed."""
        if not (self.node / "node_modules" / "ai").exists():
            self.node.mkdir(parents=True, exist_ok=True)
            (self.node / "package.json").write_text('{"type": "module"}')
            self._install("npm", ["npm", "install", "--silent", *NODE_PACKAGES], self.node)
        return self.node

    def _install(self, what: str, command: list[str | Path], folder: Path) -> None:
        if what not in self._tried:
            try:
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)
                self._tried[what] = "" if done.returncode == 0 else done.stderr[-300:] or "failed"
            except (OSError, subprocess.TimeoutExpired) as error:
                self._tried[what] = str(error)
        if why := self._tried[what]:
            pytest.skip(f"{what} cannot be installed: {why}")


@pytest.fixture(scope="session")
def environment() -> Environment:
    CACHE.mkdir(parents=True, exist_ok=True)
    return Environment(CACHE)


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = scripted_server(tmp_path_factory.mktemp("server"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
