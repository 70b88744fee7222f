"""`FakeCluster`: an emulated Kubernetes API on a local port, with simulated workloads, for tests of any kind."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, TypeVar

from aiohttp import web

from kaito_core.testing.client import KubeClient
from kaito_core.testing.kube.faults import Fault, Manner, RequestRecord
from kaito_core.testing.kube.http import EmulatedApi, MockedApi
from kaito_core.testing.kube.store import Store
from kaito_core.testing.workloads import PodFailure, Workloads

__all__ = ["FakeCluster", "PodFailure"]

Result = TypeVar("Result")


class FakeCluster(KubeClient):
    """A Kubernetes cluster without nodes, in this process. It serves real HTTP from a thread of its own.

    ```
    with FakeCluster() as cluster:                  # or `async with`
        cluster.apply_file(Path("crds/workspaces.yaml"))
        cluster.add_node("gpu-1", gpus=1)
        cluster.run_workloads()                     # Deployments and StatefulSets get ready pods
        ...                                         # point an operator at cluster.url or cluster.kubeconfig(path)
        assert cluster.writes(manager="kaito") == []
    ```

    Everything of `KubeClient` works on it; its own requests are neither logged nor failed.

    Args:
        clock: The server's clock, which need not be right.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__("", has_controllers=False, has_workloads=False)
        self._thread = threading.Thread(target=self._serve, name="fake-cluster", daemon=True)
        self._ready, self._clock = threading.Event(), clock
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._api: EmulatedApi
        self._mock: MockedApi
        self._workloads: Workloads | None = None

    # Life

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def _serve(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # whoever starts the cluster has to see it
            self._failure = error
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._api = EmulatedApi(Store(self._clock))
        self._mock = MockedApi(self._api)
        async with self._mock:
            runner = web.ServerRunner(web.Server(self._mock), shutdown_timeout=1.0)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            self._ready.set()
            await self._stop.wait()
            self._api.closing.set()
            self._api.watches.end("drop")
            await runner.cleanup()

    def _call(self, function: Callable[[], Result]) -> Result:
        """Runs a function where the store lives."""

        async def run() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def serve_service(self, namespace: str, name: str, port: int, host: str = "127.0.0.1") -> None:
        """Says where a Service answers, for webhooks that are configured with it."""
        self._call(lambda: self._api.webhooks.endpoints.__setitem__((namespace, name), (host, port)))

    # What tests look at

    @property
    def mock(self) -> MockedApi:
        """kmock's handler: reactions declared on it come before the emulated API, e.g. `mock["/quota"] << {...}`."""
        return self._mock

    def requests(self, *, method: str = "", manager: str = "", path: str = "") -> list[RequestRecord]:
        """The requests so far, oldest first: of a method, of a field manager, of paths that match an expression."""
        log = self._call(lambda: list(self._api.log))
        return [
            record
            for record in log
            if method in ("", record.method) and manager in ("", record.manager) and re.search(path, record.path)
        ]

    def writes(self, *, manager: str = "", path: str = "") -> list[RequestRecord]:
        """The requests so far that meant to change something; dry runs are none."""
        return [record for record in self.requests(manager=manager, path=path) if record.is_write]

    def clear_log(self) -> None:
        """Forgets the requests so far."""
        self._call(self._api.log.clear)

    @property
    def open_watches(self) -> int:
        """How many watch streams clients hold open."""
        return self._call(lambda: len(self._api.watches))

    # What tests do to clients

    def fail(
        self,
        method: str,
        path: str,
        status: int = 500,
        *,
        manner: Manner = "error",
        times: int = 1,
        message: str = "",
        retry_after_seconds: int = 0,
        after: int = 0,
    ) -> Fault:
        """Fails the next matching requests.

        Args:
            method: HTTP method, "WATCH", "WRITE" for all that mean to change something, or "" for any.
            path: Regular expression that the path contains.
            status: HTTP status to answer, e.g. 409, 410, 429 or 500.
            manner: "error" for that, "hang" for no answer at all, "cut" for a connection that dies in mid-answer.
            times: How many.
            message: For the Status.
            retry_after_seconds: Sent where above 0.
            after: How many matching requests are served first.

        Returns:
            The fault, whose `times` counts down.
        """
        message = message or "injected by the test"
        fault = Fault(method, path, status, times, message, retry_after_seconds, after, manner)
        self._call(lambda: self._api.faults.append(fault))
        return fault

    def drop_watches(self) -> None:
        """Ends every open watch, as a restarting API server does."""
        self._call(lambda: self._api.watches.end("drop"))

    def expire_watches(self) -> None:
        """Forgets the history: open watches end in 410 Gone, and so does one from any revision handed out so far."""

        def expire() -> None:
            self._api.store.revision += 1
            self._api.store.history.compact(self._api.store.revision)
            self._api.watches.end("expire")

        self._call(expire)

    # Nodes and pods

    def run_workloads(self, *failures: PodFailure) -> None:
        """Switches the simulated controllers, scheduler and kubelet on, or changes what fails.

        Args:
            *failures: Pods that fail, and how; the first that fits a pod counts. None: every pod gets ready.
        """

        def start() -> None:
            if self._workloads is None:
                self._workloads = Workloads(self._api.store, self._loop)
            self._workloads.run(failures)

        self._call(start)
        self.has_controllers = self.has_workloads = True
