"""The clusters that are measured on, each a process or several of their own.

The emulated API always; where KUBEBUILDER_ASSETS names a folder with etcd and kube-apiserver, these too: alone, and
with kube-controller-manager and kube-scheduler if they are there.
"""

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from operator_process import cpu_seconds

from kaito_testing.world.client import KubeClient
from kaito_testing.world.control_plane import CONTROLLERS, ControlPlane

__all__ = ["ASSETS_VARIABLE", "children_cpu_seconds", "clusters"]

ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"
EMULATED = """
import sys
from kaito_testing.world.cluster import FakeCluster

with FakeCluster() as cluster:
    cluster.run_workloads()
    print(cluster.url, flush=True)
    sys.stdin.read()
"""

#: Gives a cluster for as long as a block lasts; whatever it keeps goes into the folder.
Cluster = Callable[[Path], AbstractContextManager[KubeClient]]


@contextlib.contextmanager
def emulated(_: Path) -> Iterator[KubeClient]:
    """Gives the emulated API with its simulated workloads."""
    process = subprocess.Popen(
        [sys.executable, "-c", EMULATED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield KubeClient(process.stdout.readline().strip())  # which takes a cluster for one that lacks nothing
    finally:
        process.stdin.close()  # which ends it
        process.wait(timeout=60)
        process.stdout.close()


@contextlib.contextmanager
def alone(assets: Path, folder: Path) -> Iterator[KubeClient]:
    """Gives an API server without the controllers and the scheduler that may lie beside it."""
    programs = folder / "programs"
    programs.mkdir()
    for program in ("etcd", "kube-apiserver"):
        (programs / program).symlink_to((assets / program).resolve())
    with ControlPlane(programs, folder) as client:
        yield client


def clusters() -> dict[str, Cluster]:
    """Returns what there is to measure on, by name."""
    found: dict[str, Cluster] = {"emulated API": emulated}
    if assets := os.environ.get(ASSETS_VARIABLE):
        found["API server"] = functools.partial(alone, Path(assets))
        if all((Path(assets) / program).exists() for program in CONTROLLERS):
            found["control plane"] = functools.partial(ControlPlane, Path(assets))
    return found


def children_cpu_seconds() -> dict[int, float]:
    """Returns the CPU time of each process that this one has started and that runs, by process id."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found[int(stat.parent.name)] = cpu_seconds(int(stat.parent.name))
    return found
