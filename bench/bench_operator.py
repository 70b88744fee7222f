"""What the operator costs: time, API writes, memory and CPU for 100 and 1,000 Workspaces on the emulated API.

The operator is a process of its own, so that its memory and CPU are; the emulated API, its simulated workloads and the
user who creates the Workspaces share this one, and the machine, with it. Goals are for two cores that do nothing else.
"""

import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kaito_core.api import KubeObject
from kaito_core.api.crd import workspace_crd
from kaito_core.testing.cluster import FakeCluster

COUNTS = (100, 1000)
IDLE_SECONDS = 30.0
LIMIT_SECONDS = 600.0
PRESET = "smollm2-135m-instruct"  # served on CPUs: no node provider takes part
OPERATOR = """
import sys
from kaito_core.controller.app import run_operator
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.observed import AdapterReport
from kaito_core.settings import Settings

async def ask(pod):
    return AdapterReport(1, ())  # simulated pods have no server to ask

settings = Settings(health_port=int(sys.argv[2]), log_level="WARNING")
run_operator(settings, PluginRegistry.discover(settings), kubeconfig=sys.argv[1], ask=ask)
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured with so many Workspaces; see `ROWS` for what is what."""

    objects_seconds: float
    median_seconds: float
    p95_seconds: float
    ready_seconds: float
    writes: float
    restart_writes: float
    idle_writes: float
    memory_mib: float
    idle_cpu_percent: float
    cpu_seconds: float

    def per_workspace(self, count: int) -> float:
        """Returns the time that one Workspace took of the whole, in milliseconds."""
        return self.objects_seconds / count * 1000


#: label, field, goal
ROWS = (
    ("seconds until all have their objects", "objects_seconds", "90 at 1,000"),
    ("apply to Deployment, median, seconds", "median_seconds", ""),
    ("apply to Deployment, p95, seconds", "p95_seconds", ""),
    ("seconds until all are Ready", "ready_seconds", ""),
    ("API writes per Workspace until Ready", "writes", "8"),
    ("writes at restart, nothing changed", "restart_writes", "0"),
    ("writes per minute, idle", "idle_writes", "0"),
    ("memory of the operator, MiB", "memory_mib", "300"),
    ("CPU, idle, percent of a core", "idle_cpu_percent", ""),
    ("CPU seconds of the operator until Ready", "cpu_seconds", ""),
)


class Operator:
    """A running operator, as the machine sees it."""

    def __init__(self, kubeconfig: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self._port = int(listener.getsockname()[1])
        self._process = subprocess.Popen([sys.executable, "-c", OPERATOR, str(kubeconfig), str(self._port)])

    def stop(self) -> None:
        """Ends it as a kubelet would."""
        self._process.terminate()
        self._process.wait(timeout=60)

    def memory_mib(self) -> float:
        """Returns its resident memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def cpu_seconds(self) -> float:
        """Returns the CPU time that it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def is_ready(self) -> bool:
        """Returns whether its caches are filled."""
        with contextlib.suppress(OSError):  # not there yet, or 503
            return bool(urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5).status == 200)
        return False

    def steady_passes(self) -> float:
        """Returns how many passes have found nothing to do."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=30).read().decode()
        return sum(float(value) for value in re.findall(r'kaito_passes_total\{outcome="steady"\} (\S+)', text))


@contextlib.contextmanager
def operating(kubeconfig: Path) -> Iterator[Operator]:
    """Runs an operator for as long as the block; begins when it is ready."""
    operator = Operator(kubeconfig)
    try:
        wait("the operator", operator.is_ready, 0.1)
        yield operator
    finally:
        operator.stop()


def wait(what: str, condition: Callable[[], bool], pause_seconds: float) -> None:
    """Waits for a condition, looking seldom: looks cost the API time.

    Raises:
        TimeoutError: It does not come.
    """
    end = time.perf_counter() + LIMIT_SECONDS
    while not condition():
        if time.perf_counter() > end:
            raise TimeoutError(f"{what}: not within {LIMIT_SECONDS:g} seconds")
        time.sleep(pause_seconds)


def workspace(number: int) -> KubeObject:
    """Returns the Workspace of a number."""
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": f"w{number:04}", "namespace": "default"},
        "inference": {"preset": {"name": PRESET}},
    }


def ready(cluster: FakeCluster) -> int:
    """Returns how many Workspaces are Ready."""
    documents = cluster.list("workspaces", "default")
    return sum((document.get("status") or {}).get("state") == "Ready" for document in documents)


def ours(cluster: FakeCluster, path: str = "") -> dict[str, float]:
    """Returns when the operator first wrote to each path that matches, by path."""
    first: dict[str, float] = {}
    for record in cluster.writes(path=path):
        if record.status < 300:
            first.setdefault(record.path, record.at_seconds)
    return first


def measure(count: int, folder: Path) -> Figures:
    """Measures with so many Workspaces, on a cluster of their own."""
    with FakeCluster() as cluster:
        cluster.apply(workspace_crd())
        cluster.add_node("cpu-1", gpus=0)
        cluster.run_workloads()
        kubeconfig = cluster.kubeconfig(folder / f"kubeconfig-{count}")
        with operating(kubeconfig) as operator:
            started = time.perf_counter()
            created = {}
            for number in range(count):
                document = workspace(number)
                created[document["metadata"]["name"]] = time.perf_counter()
                cluster.create(document)
            wait("Workspaces are Ready", lambda: ready(cluster) == count, 1.0)
            ready_seconds, cpu = time.perf_counter() - started, operator.cpu_seconds()
            writes = len(cluster.writes())
            made = {path.rpartition("/")[2]: at for path, at in ours(cluster, "/deployments/").items()}
            objects = ours(cluster, "/(deployments|services|configmaps)/")
            delays = sorted(made[name] - at for name, at in created.items())
            wait("the last events", lambda: _is_quiet(cluster), 0.0)
            cluster.clear_log()
            idle_cpu = operator.cpu_seconds()
            time.sleep(IDLE_SECONDS)
            idle_cpu, idle_writes = operator.cpu_seconds() - idle_cpu, len(cluster.writes())
            memory = operator.memory_mib()
        cluster.clear_log()
        with operating(kubeconfig) as operator:
            wait("a pass for each", lambda: operator.steady_passes() >= count, 1.0)
            restart_writes = len(cluster.writes())
        return Figures(
            objects_seconds=max(objects.values()) - started,
            median_seconds=statistics.median(delays),
            p95_seconds=delays[int(len(delays) * 0.95)],
            ready_seconds=ready_seconds,
            writes=writes / count,
            restart_writes=restart_writes,
            idle_writes=idle_writes * 60 / IDLE_SECONDS,
            memory_mib=memory,
            idle_cpu_percent=idle_cpu / IDLE_SECONDS * 100,
            cpu_seconds=cpu,
        )


def _is_quiet(cluster: FakeCluster) -> bool:
    before = len(cluster.writes())
    time.sleep(3.0)
    return len(cluster.writes()) == before


def main() -> None:
    """Measures and prints."""
    counts = tuple(int(text) for text in sys.argv[1:]) or COUNTS
    with tempfile.TemporaryDirectory() as folder:
        figures = {count: measure(count, Path(folder)) for count in counts}
    print(f"{'Workspaces':42}" + "".join(f"{count:>10,}" for count in counts) + "   goal, at most")
    for label, field, goal in ROWS:
        print(f"{label:42}" + "".join(f"{getattr(figures[count], field):10.2f}" for count in counts) + f"   {goal}")
    times = [figures[count].per_workspace(count) for count in counts]
    print(f"{'milliseconds per Workspace':42}" + "".join(f"{value:10.2f}" for value in times))
    print(f"{'the same, ratio to the first':42}" + "".join(f"{value / times[0]:10.2f}" for value in times))


if __name__ == "__main__":
    main()
