"""`FaultyCluster`: a cluster whose requests are logged, and fail as a test wants, emulated or real."""

from __future__ import annotations

import abc
import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, TypeVar

from aiohttp import web

from kaito_testing.kube.server.fault_injection import Fault, Manner, RequestRecord
from kaito_testing.kube.server.interceptor import Interceptor
from kaito_testing.world.client import KubeClient

__all__ = ["Answer", "FaultyCluster"]

Result = TypeVar("Result")
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class FaultyCluster(KubeClient, abc.ABC):
    """An API on a local port that is served by a thread for as long as the block.

    It has all methods of `KubeClient`, whose own requests are neither logged nor failed.
    """

    _interceptor: Interceptor
    _loop: asyncio.AbstractEventLoop
    _stop: asyncio.Event
    _failure: BaseException | None

    @abc.abstractmethod
    def _serving(self) -> AbstractAsyncContextManager[Answer]:
        """Sets `_interceptor`, and yields the function that answers requests."""

    @abc.abstractmethod
    async def _forget(self) -> None:
        """Forgets the history so far."""

    # Life

    def __enter__(self) -> Self:
        self._ready, self._failure = threading.Event(), None
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
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

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # `__enter__` raises it
            self._failure = error
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._serving() as answer:
            runner = web.ServerRunner(web.Server(answer), shutdown_timeout=1.0)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            self._ready.set()
            await self._stop.wait()
            self._interceptor.close()
            await runner.cleanup()

    def _call(self, function: Callable[[], Result]) -> Result:
        """Runs a function in the thread of the API."""

        async def run() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    # What a test reads

    def requests(self, *, method: str = "", manager: str = "", path: str = "") -> list[RequestRecord]:
        """Returns the requests so far, oldest first.

        Args:
            method: HTTP method, "" for any.
            manager: Field manager, "" for any.
            path: Regular expression that is searched in the path.
        """
        log = self._call(lambda: list(self._interceptor.log))
        return [
            record
            for record in log
            if method in ("", record.method) and manager in ("", record.manager) and re.search(path, record.path)
        ]

    def writes(self, *, manager: str = "", path: str = "") -> list[RequestRecord]:
        """Returns the requests so far that asked for a change, dry runs excepted."""
        return [record for record in self.requests(manager=manager, path=path) if record.is_write]

    def clear_log(self) -> None:
        """Forgets the requests so far."""
        self._call(self._interceptor.log.clear)

    @property
    def open_watches(self) -> int:
        """How many watch streams are open."""
        return self._call(lambda: len(self._interceptor.watches))

    # What a test does to clients

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
            method: HTTP method, "WATCH", "WRITE" for all that ask for a change, or "" for any.
            path: Regular expression that is searched in the path.
            status: HTTP status of the answer, e.g. 409, 410, 429 or 500.
            manner: "error" answers with `status`; "hang" neither serves nor answers; "cut" serves, and breaks the
                connection in the middle of the answer.
            times: How many requests fail.
            message: Message of the Status.
            retry_after_seconds: Sent as Retry-After if above 0.
            after: How many matching requests are served first.

        Returns:
            The fault, whose `times` counts down.
        """
        message = message or "injected by the test"
        fault = Fault(method, path, status, times, message, retry_after_seconds, after, manner)
        self._call(lambda: self._interceptor.faults.append(fault))
        return fault

    def drop_watches(self) -> None:
        """Ends all open watches, as an API server does that restarts."""
        self._call(lambda: self._interceptor.watches.end("drop"))

    def expire_watches(self) -> None:
        """Forgets the history: open watches end with 410 Gone, and so do new ones from any revision so far."""

        async def expire() -> None:
            await self._forget()
            self._interceptor.watches.end("expire")

        asyncio.run_coroutine_threadsafe(expire(), self._loop).result()
