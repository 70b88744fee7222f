"""`kaito operator` as a process, for tests of signals, logs and settings."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kaito_testing.world.client import KubeClient

__all__ = ["Process"]

_WAIT_SECONDS = 30.0


class Process:
    """An operator that runs until the block ends. Its log is JSON, in a file.

    Args:
        cluster: The cluster.
        folder: For the kubeconfig and the log.
        under: Words before its command, which start it as somebody else.
        **settings: Settings by name, e.g. `health_port`.
    """

    _numbers = itertools.count()

    def __init__(self, cluster: KubeClient, folder: Path, under: Sequence[str] = (), **settings: object) -> None:
        number = next(self._numbers)
        self._log = folder / f"operator-{number}.log"
        kubeconfig = cluster.kubeconfig(folder / f"operator-{number}.kubeconfig")
        self._command = [*under, sys.executable, "-m", "kaito_core.cli", "operator", "--kubeconfig", str(kubeconfig)]
        given = {"health_port": 0, "log_format": "json", **settings}
        self._env: Mapping[str, str] = {
            **os.environ,
            **{f"KAITO_{name.upper()}": str(value) for name, value in given.items()},
        }
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, env=self._env, stdout=log, stderr=subprocess.STDOUT)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()  # SIGTERM would not reach a stopped one
        self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Waits for the end and returns the exit status; a signal that ended it as a negative number."""
        return self._process.wait(_WAIT_SECONDS)

    def errors(self) -> list[dict[str, Any]]:
        """Returns the lines of its log that are errors."""
        return [line for line in self.lines() if line["level"] in ("ERROR", "CRITICAL")]

    def lines(self) -> list[dict[str, Any]]:
        """Returns the lines of its log so far, which must be JSON."""
        return [json.loads(line) for line in self._log.read_text().splitlines()]
