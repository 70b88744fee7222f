"""A real API server where this machine has one, and the emulated one beside it where both have to agree.

`KUBEBUILDER_ASSETS` names a folder with kube-apiserver and etcd (envtest's convention), `KAITO_TEST_KUBECONFIG` a
kubeconfig of a cluster that may be written to. An API server alone has no garbage collection and makes no pods: with
kube-controller-manager and kube-scheduler in the folder it does, and only kubelets are missing. `has_gc`,
`has_controllers` and `has_workloads` of the client say what there is. A real server is reached through a proxy, by
which tests fail requests and end watches as they do with the emulated one.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaito_core.api.workspace.crd import workspace_crd
from kaito_testing.world.client import KubeClient
from kaito_testing.world.cluster import FakeCluster
from kaito_testing.world.control_plane import ControlPlane, client_of_kubeconfig
from kaito_testing.world.faulty_cluster import FaultyCluster
from kaito_testing.world.proxy import ProxiedCluster
from scenarios.support.fixtures import azure, mortal, standby, story, undisturbed  # noqa: F401
from scenarios.support.state import add_node, is_established
from scenarios.support.world import World

DEFAULT_ASSETS = "/usr/local/kubebuilder/bin"
HOW = (
    "no real API server: set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd"
    " (`setup-envtest use 1.36.x -p path` prints one), or KAITO_TEST_KUBECONFIG to a kubeconfig of a test cluster"
)


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeClient]:
    """A real API server, shared by the session; skips with what to set where there is none."""
    kubeconfig = os.environ.get("KAITO_TEST_KUBECONFIG", "")
    assets = Path(os.environ.get("KUBEBUILDER_ASSETS", DEFAULT_ASSETS))
    if kubeconfig:
        yield client_of_kubeconfig(Path(kubeconfig), tmp_path_factory.mktemp("kubeconfig"))
    elif (assets / "kube-apiserver").exists() and (assets / "etcd").exists():
        with ControlPlane(assets, tmp_path_factory.mktemp("control-plane")) as client:
            yield client
    else:
        pytest.skip(HOW)


@pytest.fixture(params=["real"])
def cluster(request: pytest.FixtureRequest) -> Iterator[FaultyCluster]:
    """A real API server, shared by all tests; for tests that ask for "emulated" too, that one, empty."""
    if request.param == "real":
        with ProxiedCluster(request.getfixturevalue("api_server")) as proxied:
            yield proxied
        return
    with FakeCluster() as fake:
        fake.run_workloads()
        yield fake


@pytest.fixture
def namespace(cluster: FaultyCluster) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"kaito-test-{uuid.uuid4().hex[:8]}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    cluster.delete("namespaces", name, "")


@pytest.fixture
def controllers(cluster: FaultyCluster) -> None:
    """Skips on a server without controllers, which make pods and collect garbage: by hand, that takes too long."""
    if not (cluster.has_controllers and cluster.has_gc):
        pytest.skip("this server needs kube-controller-manager and kube-scheduler beside it")


@pytest.fixture
def world(cluster: FaultyCluster, namespace: str, tmp_path: Path) -> Iterator[World]:
    """A World on either server; its operator is not started yet, and it leaves nothing behind."""
    if cluster.has_workloads and not isinstance(cluster, FakeCluster):
        pytest.skip("the kubelets of this cluster would run what the scenarios only name")
    cluster.apply(workspace_crd())
    cluster.wait("the Workspace's type", lambda: is_established(cluster, "workspaces.kaito.sh"))
    made = World(cluster, tmp_path, namespace)
    add_node(made, "cpu-1", gpus=0)
    try:
        yield made
        made.stop()
    finally:
        made.clean()
