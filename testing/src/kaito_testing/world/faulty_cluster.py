"""`FaultyCluster`: a cluster that remembers what it was asked and fails as tests tell it to, whatever answers there."""

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
    """What answers stands on a local port and runs in a thread of its own for as long as the block.

    Everything of `KubeClient` works on it; its own requests are neither logged nor failed.
    """

    _interceptor: Interceptor
    _loop: asyncio.AbstractEventLoop
    _stop: asyncio.Event
    _failure: BaseException | None

    @abc.abstractmethod
    def _serving(self) -> AbstractAsyncContextManager[Answer]:
        """Sets `_interceptor` and gives what answers, for as long as the block."""

    @abc.abstractmethod
    async def _forget(self) -> None:
        """Forgets the history up to now."""

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
        except BaseException as error:  # whoever starts the cluster has to see it
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
        """Runs a function in the thread that answers."""

        async def run() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    # What tests look at

    def requests(self, *, method: str = "", manager: str = "", path: str = "") -> list[RequestRecord]:
        """The requests so far, oldest first: of a method, of a field manager, of paths that match an expression."""
        log = self._call(lambda: list(self._interceptor.log))
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
        self._call(self._interceptor.log.clear)

    @property
    def open_watches(self) -> int:
        """How many watch streams clients hold open."""
        return self._call(lambda: len(self._interceptor.watches))

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
        self._call(lambda: self._interceptor.faults.append(fault))
        return fault

    def drop_watches(self) -> None:
        """Ends every open watch, as a restarting API server does."""
        self._call(lambda: self._interceptor.watches.end("drop"))

    def expire_watches(self) -> None:
        """Forgets the history: open watches end in 410 Gone, and so does one from any revision handed out so far."""

        async def expire() -> None:
            await self._forget()
            self._interceptor.watches.end("expire")

        asyncio.run_coroutine_threadsafe(expire(), self._loop).result()
