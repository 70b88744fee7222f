"""The clusters of the benchmark, in processes of their own.

There is always the emulated API. If KUBEBUILDER_ASSETS names a folder with etcd and kube-apiserver, there is also a
real API server: alone, and with kube-controller-manager and kube-scheduler if the folder has them.
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

#: A context manager that runs a cluster, whose files are in the given folder.
Cluster = Callable[[Path], AbstractContextManager[KubeClient]]


@contextlib.contextmanager
def emulated(_: Path) -> Iterator[KubeClient]:
    """Runs the emulated API with simulated workloads."""
    process = subprocess.Popen(
        [sys.executable, "-c", EMULATED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield KubeClient(process.stdout.readline().strip())  # by default, one with controllers and workloads
    finally:
        process.stdin.close()  # ends the process
        process.wait(timeout=60)
        process.stdout.close()


@contextlib.contextmanager
def alone(assets: Path, folder: Path) -> Iterator[KubeClient]:
    """Runs an API server without controllers and scheduler, even if the folder has them."""
    programs = folder / "programs"
    programs.mkdir()
    for program in ("etcd", "kube-apiserver"):
        (programs / program).symlink_to((assets / program).resolve())
    with ControlPlane(programs, folder) as client:
        yield client


def clusters() -> dict[str, Cluster]:
    """Returns the clusters that can be run here, by name."""
    found: dict[str, Cluster] = {"emulated API": emulated}
    if assets := os.environ.get(ASSETS_VARIABLE):
        found["API server"] = functools.partial(alone, Path(assets))
        if all((Path(assets) / program).exists() for program in CONTROLLERS):
            found["control plane"] = functools.partial(ControlPlane, Path(assets))
    return found


def children_cpu_seconds() -> dict[int, float]:
    """Returns the CPU time of the running children of this process, in seconds, by process id."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found[int(stat.parent.name)] = cpu_seconds(int(stat.parent.name))
    return found
