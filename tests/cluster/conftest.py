"""Clusters for the scenarios: the emulated one always, a real API server where this machine has one.

`KUBEBUILDER_ASSETS` names a folder with kube-apiserver and etcd (envtest's convention), `KAITO_TEST_KUBECONFIG` a
kubeconfig of a cluster that may be written to. An API server alone has no garbage collection and makes no pods: with
kube-controller-manager and kube-scheduler in the folder it does, and only kubelets are missing. `has_gc`,
`has_controllers` and `has_workloads` of the client say what there is.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaito_core.testing.client import KubeClient
from kaito_core.testing.cluster import FakeCluster
from kaito_core.testing.control_plane import ControlPlane, client_of_kubeconfig

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


@pytest.fixture(params=["emulated", "real"])
def cluster(request: pytest.FixtureRequest) -> Iterator[KubeClient]:
    """The same small interface on either server; the emulated one starts empty, the real one is shared."""
    if request.param == "real":
        yield request.getfixturevalue("api_server")
        return
    with FakeCluster() as fake:
        fake.run_workloads()
        yield fake


@pytest.fixture
def namespace(cluster: KubeClient) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"kaito-test-{uuid.uuid4().hex[:8]}"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    cluster.delete("namespaces", name, "")
