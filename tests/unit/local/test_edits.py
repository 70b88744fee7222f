"""Edits of a Workspace's file while it is served: which are taken up, and what becomes of them."""

import asyncio
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.faulty_server import Site, reply, serving
from kaito_core.api import parse_workspace
from kaito_core.errors import ConfigError
from kaito_core.local.edits import Edits
from kaito_core.local.pod import Command, LocalPod
from kaito_core.local.supervisor import run_pod
from kaito_core.reconcile.resolve import Resolved
from kaito_testing.registry import example_preset

WORKSPACE = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": "w"},
    "inference": {"preset": {"name": "example"}},
}


def resolved() -> Resolved:
    return Resolved(parse_workspace(WORKSPACE), example_preset())


def test_an_edit_is_taken_up_once_and_when_it_has_settled(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("one")
    edits = Edits(file, resolved)
    assert edits.next(resolved()) is None
    file.write_text("tw")
    assert edits.next(resolved()) is None  # an editor may be in the middle of it
    file.write_text("two")
    assert edits.next(resolved()) is None
    found = edits.next(resolved())
    assert found is not None and found.workspace.generation == 2
    assert edits.next(resolved()) is None
    file.unlink()
    assert edits.next(resolved()) is edits.next(resolved()) is None
    file.write_text("three")
    edits.next(resolved())
    found = edits.next(resolved())
    assert found is not None and found.workspace.generation == 3


def test_a_wrong_file_is_an_error_once(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("one")

    def wrong() -> Resolved:
        raise ConfigError("w.yaml: inference.adapters[0].strength must be a finite number")

    edits = Edits(file, wrong)
    file.write_text("two")
    edits.next(resolved())
    with pytest.raises(ConfigError, match="strength"):
        edits.next(resolved())
    assert edits.next(resolved()) is None


def test_another_preset_needs_a_new_start(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("one")
    edits = Edits(file, lambda: replace(resolved(), preset=example_preset(name="other")))
    file.write_text("two")
    edits.next(resolved())
    with pytest.raises(ConfigError, match="another preset is served after a new start"):
        edits.next(resolved())


@pytest.fixture
def runtime() -> Any:
    """A server that is ready, in place of the runtime."""

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if handler.command == "POST":
            handler.rfile.read(int(handler.headers["Content-Length"]))
        return reply(handler, 200, b'{"data": []}', Content_Type="application/json")

    with serving(Site(answer=answer)) as site:
        yield site


def test_files_come_before_the_configuration_and_errors_change_nothing(
    runtime: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters, config = tmp_path / "adapters", tmp_path / "serving.json"
    sleeps = Command("runtime", (sys.executable, "-c", "import time; time.sleep(60)"), {})
    done = threading.Event()

    def fetch(name: str, code: str) -> Command:
        return Command(f"adapter-{name}", (sys.executable, "-c", code), {})

    def pod(text: str, *steps: Command, served: Command = sleeps) -> LocalPod:
        return LocalPod(steps, served, adapters, {config: text})

    writes = f"import pathlib; p = pathlib.Path({str(adapters / 'a' / '1')!r}); p.mkdir(parents=True)"
    writes += "; (p / 'adapter_config.json').write_text('{}')"
    seen: list[str] = []
    edits: list[Any] = [
        ConfigError("w.yaml: wrong"),
        (pod("broken", fetch("b", "raise SystemExit(3)")), ["b/1"]),
        (pod("other", served=replace(sleeps, env={"KAITO_X": "1"})), []),
        (pod("good", fetch("a", writes)), ["a/1"]),
    ]

    def update() -> tuple[LocalPod, Sequence[str]] | None:
        seen.append(config.read_text())
        if not edits:
            if not done.is_set():
                done.set()
                threading.Timer(0.1, lambda: loop.loop.call_soon_threadsafe(loop.task.cancel)).start()
            return None
        found = edits.pop(0)
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    loop = SimpleNamespace()

    first = pod("first")
    first.write_config()

    async def main() -> None:
        loop.loop, loop.task = asyncio.get_running_loop(), asyncio.current_task()
        await run_pod(first, example_preset(), (), runtime.url, update=update)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert seen == ["first"] * 4 + ["good"]
    said = capsys.readouterr().err
    assert "error: w.yaml: wrong; what was served before is served on" in said
    assert "error: step adapter-b ended with exit status 3; what was served before is served on" in said
    assert "error: this edit needs a new start of kaito up; what was served before is served on" in said
    assert said.count("the edit is applied") == 1
