"""`FakeCluster`: an emulated Kubernetes API on a local port, with simulated workloads."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

from kaito_testing.kube.objects.cluster import new_cluster
from kaito_testing.kube.server.http import EmulatedApi, MockedApi
from kaito_testing.world.faulty_cluster import Answer, FaultyCluster
from kaito_testing.world.workloads import PodFailure, Workloads

__all__ = ["FakeCluster", "PodFailure"]


class FakeCluster(FaultyCluster):
    """A Kubernetes cluster without nodes, which serves HTTP from a thread of this process.

    ```
    with FakeCluster() as cluster:                  # or `async with`
        cluster.apply_file(Path("crds/workspaces.yaml"))
        cluster.add_node("gpu-1", gpus=1)
        cluster.run_workloads()                     # Deployments and StatefulSets get ready pods
        ...                                         # start an operator with cluster.url or cluster.kubeconfig(path)
        assert cluster.writes(manager="kaito") == []
    ```

    It has all methods of `KubeClient` and `FaultyCluster`.

    Args:
        clock: The server's clock.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__("", has_controllers=False, has_workloads=False)
        self._clock = clock
        self._api: EmulatedApi
        self._mock: MockedApi
        self._workloads: Workloads | None = None

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[Answer]:
        self._api = EmulatedApi(new_cluster(self._clock))
        self._interceptor, self._mock = self._api.interceptor, MockedApi(self._api)
        async with self._mock:
            yield self._mock

    async def _forget(self) -> None:
        self._api.store.revision += 1
        self._api.store.history.compact(self._api.store.revision)

    def serve_service(self, namespace: str, name: str, port: int, host: str = "127.0.0.1") -> None:
        """Sets where a Service answers, for webhooks that are configured with it."""
        self._call(lambda: self._api.webhooks.endpoints.__setitem__((namespace, name), (host, port)))

    @property
    def mock(self) -> MockedApi:
        """kmock's handler: its reactions come before the emulated API, e.g. `mock["/quota"] << {...}`."""
        return self._mock

    # Nodes and pods

    def run_workloads(self, *failures: PodFailure) -> None:
        """Starts the simulated controllers, scheduler and kubelet, or changes what fails.

        Args:
            *failures: Which pods fail, and how: for each pod the first that fits. Without any, every pod gets ready.
        """

        def start() -> None:
            if self._workloads is None:
                self._workloads = Workloads(self._api.verbs, self._loop)
            self._workloads.run(failures)

        self._call(start)
        self.has_controllers = self.has_workloads = True
