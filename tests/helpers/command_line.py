"""Runs `kaito` as a program that calls it sees it: a process with output, errors and an exit status."""

import subprocess
import sys
from pathlib import Path

_HANG_SECONDS = 60  # the bound of a hang, not a measure of speed


def kaito(*arguments: str | Path, stdin: str = "", **env: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command with nothing in its environment but a PATH and `env`."""
    return subprocess.run(
        [sys.executable, "-m", "kaito_core.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_HANG_SECONDS,
        env={"PATH": "/usr/bin:/bin", **env},
    )
