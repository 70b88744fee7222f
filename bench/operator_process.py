"""Runs the operator in a process of its own, and reads its memory, its CPU time and its metrics."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Operator", "cpu_seconds", "operating"]

START_SECONDS = 120.0
OPERATOR = """
import sys
from kaito_core.controller.app import run_operator
from kaito_core.controller.app import spare_collector
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.observed import AdapterReport
from kaito_core.settings import Settings

async def ask(pod):
    return AdapterReport(1, ())  # the pods have no server to ask

settings = Settings(health_port=int(sys.argv[2]), log_level="WARNING")
registry = PluginRegistry.discover(settings)
spare_collector()
run_operator(settings, registry, kubeconfig=sys.argv[1], ask=ask)
"""


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Operator:
    """A running operator.

    Args:
        kubeconfig: The cluster that it works on.

    Attributes:
        pid: Its process id.
    """

    def __init__(self, kubeconfig: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = int(listener.getsockname()[1])
        self._process = subprocess.Popen([sys.executable, "-c", OPERATOR, str(kubeconfig), str(self._port)])
        self.pid = self._process.pid

    def stop(self) -> None:
        """Ends the operator with SIGTERM, as a kubelet does."""
        self._process.terminate()
        self._process.wait(timeout=60)

    def memory_mib(self) -> float:
        """Returns its resident memory, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def is_ready(self) -> bool:
        """Returns whether its caches are filled."""
        with contextlib.suppress(OSError):  # it does not listen yet, or answers 503
            return bool(self._get("/readyz"))
        return False

    def steady_passes(self) -> float:
        """Returns the number of passes that had nothing to do."""
        return sum(
            float(value) for value in re.findall(r'kaito_passes_total\{outcome="steady"\} (\S+)', self._metrics())
        )

    def writes(self) -> dict[str, float]:
        """Returns the number of writes that it has sent, by kind of object. Attempts and events count."""
        found: dict[str, float] = {}
        for labels, value in re.findall(r"kaito_api_writes_total\{(.*)\} (\S+)", self._metrics()):
            kind, subresource = (re.findall(rf'{name}="(\w*)"', labels)[0] for name in ("kind", "subresource"))
            what = f"{kind}/{subresource}" if subresource else kind
            found[what] = found.get(what, 0.0) + float(value)
        return found

    def _metrics(self) -> str:
        return self._get("/metrics").decode()

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=30) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def operating(kubeconfig: Path) -> Iterator[Operator]:
    """Runs an operator until the block ends. The block begins when the operator's caches are filled.

    Raises:
        TimeoutError: The caches are not filled within `START_SECONDS`.
    """
    operator = Operator(kubeconfig)
    end = time.monotonic() + START_SECONDS
    try:
        while not operator.is_ready():
            if time.monotonic() > end:
                raise TimeoutError(f"the operator was not ready within {START_SECONDS:g} seconds")
            time.sleep(0.1)
        yield operator
    finally:
        operator.stop()
