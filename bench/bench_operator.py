"""Measures the operator: time, API writes, memory and CPU for 100 and 1,000 Workspaces.

It runs on the emulated API, and on real clusters if there are any (see `clusters`). The operator and the cluster are
separate processes. On every cluster, the writes come from the operator's metrics, and the times from watches. The goals
are for a machine with two cores and no other load. On a full control plane there is no goal for the time, since other
controllers do most of the work there.
"""

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from api import Api, Sightings
from clusters import Cluster, children_cpu_seconds, clusters
from kubelets import Controllers, Kubelets, add_machines
from operator_process import Operator, cpu_seconds, operating

from kaito_core.api import KubeObject
from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.api.workspace.crd import workspace_crd
from kaito_testing.kube.errors import ApiError
from kaito_testing.world.client import KubeClient

COUNTS = (100, 1000)
IDLE_SECONDS, QUIET_SECONDS, LIMIT_SECONDS = 30.0, 3.0, 600.0
PRESET = "smollm2-135m-instruct"  # served on CPUs: no node provider takes part
PATH = "/apis/kaito.sh/v1beta1/namespaces/default/workspaces"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
OBJECTS = (DEPLOYMENTS, "/api/v1/namespaces/default/services", "/api/v1/namespaces/default/configmaps")
#: Seconds until all have their objects, at 1,000.
OBJECTS_GOALS = {"emulated API": "90 at 1,000", "API server": "40 at 1,000", "control plane": ""}


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured for one number of Workspaces; `ROWS` explains the fields."""

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
    cluster_cpu_seconds: float
    milliseconds: float
    cpu_milliseconds: float
    by_kind: Mapping[str, float]


#: label, field, goal
ROWS = (
    ("seconds until all have their objects", "objects_seconds", "{objects}"),
    ("apply to Deployment, median, seconds", "median_seconds", ""),
    ("apply to Deployment, p95, seconds", "p95_seconds", ""),
    ("seconds until all are Ready", "ready_seconds", ""),
    ("API writes per Workspace until Ready", "writes", "8"),
    ("writes at restart, nothing changed", "restart_writes", "0"),
    ("writes per minute, idle", "idle_writes", "0"),
    ("memory of the operator, MiB", "memory_mib", "300"),
    ("CPU, idle, percent of a core", "idle_cpu_percent", ""),
    ("CPU seconds of the operator until Ready", "cpu_seconds", ""),
    ("CPU seconds of the cluster until Ready", "cluster_cpu_seconds", ""),
    ("milliseconds per Workspace", "milliseconds", "as at 100"),
    ("the operator's CPU of it, milliseconds", "cpu_milliseconds", "as at 100"),
)


async def until(what: str, condition: Callable[[], bool], api: Api, pause_seconds: float) -> None:
    """Waits for a condition.

    Raises:
        TimeoutError: The condition does not become true.
    """
    end = time.perf_counter() + LIMIT_SECONDS
    while not condition():
        api.failed()
        if time.perf_counter() > end:
            raise TimeoutError(f"{what}: not within {LIMIT_SECONDS:g} seconds")
        await asyncio.sleep(pause_seconds)


def workspace(number: int) -> KubeObject:
    """Returns the Workspace with a number in its name."""
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": f"w{number:04}", "namespace": "default"},
        "inference": {"preset": {"name": PRESET}},
    }


def prepare(cluster: KubeClient, count: int) -> None:
    """Prepares an empty cluster for a number of Workspaces, each with one pod."""
    cluster.apply(workspace_crd())
    cluster.wait("the CRD", lambda: _is_served(cluster), 60)
    if cluster.has_controllers:
        cluster.wait("the service account of pods", lambda: cluster.get("serviceaccounts", "default"), 60)
    add_machines(cluster, count)


def _is_served(cluster: KubeClient) -> bool:
    with contextlib.suppress(ApiError):  # 404, and then 429 for a while
        cluster.request("GET", PATH)
        return True
    return False


async def quiet(operator: Operator) -> dict[str, float]:
    """Waits until the operator writes nothing more, and returns its writes by kind."""
    before: dict[str, float] | None = None
    while (now := operator.writes()) != before:
        before = now
        await asyncio.sleep(QUIET_SECONDS)
    return now


async def measure(count: int, cluster: KubeClient, folder: Path) -> Figures:
    """Measures a number of Workspaces on an empty cluster."""
    prepare(cluster, count)
    kubeconfig = cluster.kubeconfig(folder / "kubeconfig")
    ready = Sightings(lambda obj: (obj.get("status") or {}).get("state") == "Ready")
    objects = {path: Sightings() for path in OBJECTS}
    async with Api(cluster) as api:
        api.watch(PATH, ready.take)
        for path, sightings in objects.items():
            api.watch(f"{path}?labelSelector={WORKSPACE_LABEL}", sightings.take, whole=False)
        if not cluster.has_workloads:
            api.watch("/api/v1/pods", Kubelets(api).take)
        if not cluster.has_controllers:
            controllers = Controllers(api)
            api.watch(DEPLOYMENTS, controllers.take)
            api.watch("/api/v1/pods", controllers.take_pod)
        with operating(kubeconfig) as operator:
            cpu, cluster_cpu = cpu_seconds(operator.pid), _cluster_cpu_seconds(operator)
            started, applied = time.perf_counter(), {}
            for number in range(count):
                document = workspace(number)
                applied[document["metadata"]["name"]] = time.perf_counter()
                await api.send("POST", PATH, document)
            await until("Workspaces are Ready", lambda: len(ready.at) == count, api, 0.1)
            cpu, cluster_cpu = cpu_seconds(operator.pid) - cpu, _cluster_cpu_seconds(operator) - cluster_cpu
            writes = await quiet(operator)
            idle_cpu = cpu_seconds(operator.pid)
            await asyncio.sleep(IDLE_SECONDS)
            idle_cpu = cpu_seconds(operator.pid) - idle_cpu
            idle_writes = sum(operator.writes().values()) - sum(writes.values())
            memory = operator.memory_mib()
        with operating(kubeconfig) as operator:
            await until("a pass for each", lambda: operator.steady_passes() >= count, api, 1.0)
            restart_writes = sum((await quiet(operator)).values())
    delays = sorted(objects[DEPLOYMENTS].at[name] - at for name, at in applied.items())
    objects_seconds = max(max(sightings.at.values()) for sightings in objects.values()) - started
    return Figures(
        objects_seconds=objects_seconds,
        median_seconds=statistics.median(delays),
        p95_seconds=delays[int(len(delays) * 0.95)],
        ready_seconds=max(ready.at.values()) - started,
        writes=sum(writes.values()) / count,
        restart_writes=restart_writes,
        idle_writes=idle_writes * 60 / IDLE_SECONDS,
        memory_mib=memory,
        idle_cpu_percent=idle_cpu / IDLE_SECONDS * 100,
        cpu_seconds=cpu,
        cluster_cpu_seconds=cluster_cpu,
        milliseconds=objects_seconds / count * 1000,
        cpu_milliseconds=cpu / count * 1000,
        by_kind={kind: number / count for kind, number in sorted(writes.items())},
    )


def _cluster_cpu_seconds(operator: Operator) -> float:
    return sum(seconds for pid, seconds in children_cpu_seconds().items() if pid != operator.pid)


def measured(name: str, cluster: Cluster, counts: tuple[int, ...]) -> None:
    """Measures one kind of cluster, and prints a table."""
    figures = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as client:
            figures.append(asyncio.run(measure(count, client, Path(folder))))
    title = f"{name}, Workspaces"
    print(f"\n{title:42}" + "".join(f"{count:>10,}" for count in counts) + "   goal, at most")
    for label, field, goal in ROWS:
        values = "".join(f"{getattr(item, field):10.2f}" for item in figures)
        print(f"{label:42}{values}   {goal.format(objects=OBJECTS_GOALS[name])}")
    for field in ("milliseconds", "cpu_milliseconds"):
        ratios = [getattr(item, field) / getattr(figures[0], field) for item in figures]
        print(f"{f'{field}, ratio to the first':42}" + "".join(f"{ratio:10.2f}" for ratio in ratios))
    kinds = ", ".join(f"{kind} {number:.2f}" for kind, number in figures[-1].by_kind.items())
    print(f"writes per Workspace, of {counts[-1]:,}: {kinds}", flush=True)


def main() -> None:
    """Measures every cluster. The arguments are numbers of Workspaces."""
    counts = tuple(int(text) for text in sys.argv[1:]) or COUNTS
    for name, cluster in clusters().items():
        measured(name, cluster, counts)


if __name__ == "__main__":
    main()
