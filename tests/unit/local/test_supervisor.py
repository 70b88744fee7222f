"""What `kaito up` prints about the processes that it runs."""

import asyncio
import sys
from pathlib import Path

import pytest

from kaito_core.errors import ConfigError
from kaito_core.local.pod import Command, LocalPod
from kaito_core.local.supervisor import run_pod
from kaito_testing.registry import example_preset

NOWHERE = "http://127.0.0.1:1"
ENDS_ITSELF = "import os, signal; os.kill(os.getpid(), signal.{signal})"


def command(name: str, *argv: str) -> Command:
    return Command(name, argv, {})


def run(tmp_path: Path, *steps: Command, runtime: Command | None = None, notes: tuple[str, ...] = ()) -> int:
    pod = LocalPod(steps, runtime or command("runtime", "false"), tmp_path)
    return asyncio.run(run_pod(pod, example_preset(), (), NOWHERE, notes))


def test_notes_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, command("weights", "false"), notes=("note: mind the gap",)) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "note: mind the gap"
    assert last == "error: step weights ended with exit status 1; nothing is served"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((sys.executable, "-c", "raise SystemExit(3)"), "ended with exit status 3"),
        (
            (sys.executable, "-c", ENDS_ITSELF.format(signal="SIGKILL")),
            "was killed (SIGKILL), probably because this machine or container ran out of memory",
        ),
        ((sys.executable, "-c", ENDS_ITSELF.format(signal="SIGSEGV")), "was ended by signal 11 (Segmentation fault)"),
    ],
)
def test_the_end_of_the_runtime_is_explained(
    argv: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, runtime=command("runtime", *argv)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: the runtime {words} before it was ready"


def test_a_program_that_is_not_here_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^adapter-a: 'fetch-nothing' cannot be run on this machine: No such file or directory$"
    ):
        run(tmp_path, command("adapter-a", "fetch-nothing", "x"))
