"""A thread for the hooks whose results passes wait for: a blocking hook delays passes, but no probe and no Lease."""

import asyncio
import contextvars
import functools
import queue
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from kaito_core.errors import BackendError
from kaito_core.plugins.calls import running_call

__all__ = ["PluginThread"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_CALL_SECONDS = 30.0


class PluginThread:
    """Runs functions that call plugins, one after another: plugins need not be safe for several threads.

    Args:
        seconds: Longest wait for a function, its wait for others included.
    """

    def __init__(self, seconds: float = _CALL_SECONDS) -> None:
        self._seconds = seconds
        self._calls: queue.SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Returns what a function returns, or raises what it raises.

        Raises:
            BackendError: It has not returned in time; the message names the plugin and the hook.
        """
        if self._thread is None:
            # A daemon: a plugin that never returns does not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="plugins", daemon=True)
            self._thread.start()
        context = contextvars.copy_context()  # the log names the Workspace from the thread too
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._calls.put((future, functools.partial(context.run, function, *args, **kwargs)))
        try:
            async with asyncio.timeout(self._seconds) as limit:
                return await future
        except TimeoutError as error:
            if not limit.expired():
                raise
            call, seconds = running_call(self._thread.ident or 0)
            message = f"{call or 'the plugins'} did not return within {max(seconds, self._seconds):.0f} seconds"
            raise BackendError(f"{message}; correct the plugin or remove it") from error

    def close(self) -> None:
        """Ends the thread once it has nothing to do."""
        if self._thread is not None:
            self._calls.put(None)

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if future.cancelled():
                continue
            try:
                settle = functools.partial(_set_result, future, call())
            except BaseException as error:
                settle = functools.partial(_set_exception, future, error)
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle)


def _set_result(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
