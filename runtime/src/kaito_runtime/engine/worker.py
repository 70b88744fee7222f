"""Worker: a thread that takes turns, and between turns runs functions for the event loop. Independent of models."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Worker"]

log = logging.getLogger(__name__)
T = TypeVar("T")


class Worker:
    """A thread that logs every exception and goes on: if it ended, every client would wait forever.

    Args:
        name: Name of the thread.
        busy: Returns whether there is a turn to take; called in the thread.
        turn: Takes a turn; called in the thread.
    """

    def __init__(self, name: str, busy: Callable[[], bool], turn: Callable[[], None]) -> None:
        self._busy = busy
        self._turn = turn
        self._submitted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # From the event loop's thread.

    def start(self) -> None:
        """Starts the thread. Results are delivered to the event loop that is running now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, act: Callable[[], None]) -> None:
        """Runs a function in the thread before the next turn, in the order of calls."""
        self._submitted.put(act)

    async def call(self, act: Callable[[], T]) -> T:
        """Runs a function in the thread before the next turn; returns its result or raises its exception."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(set_: Callable[[T], None] | Callable[[Exception], None], value: object) -> None:
            if not done.done():
                set_(value)  # type: ignore[arg-type]

        def work() -> None:
            try:
                result = act()
            except Exception as error:
                self.run_in_loop(lambda error=error: settle(done.set_exception, error))  # type: ignore[misc]
            else:
                self.run_in_loop(lambda: settle(done.set_result, result))

        self.submit(work)
        return await done

    async def stop(self, last: Callable[[], None], *, patience_seconds: float | None = None) -> None:
        """Ends the thread after everything that was submitted before, and `last`.

        Args:
            last: Function to run at the end.
            patience_seconds: How long to wait for the thread, which may hang in a turn; None waits forever.
        """

        def halt() -> None:
            self._stopped = True
            last()

        if self.alive:
            self.submit(halt)
            await asyncio.to_thread(self._thread.join, patience_seconds)

    # From the worker's own thread.

    def run_in_loop(self, act: Callable[[], None]) -> None:
        """Runs a function in the event loop's thread."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:  # the event loop has ended, and with it every reader
            log.debug("the event loop has ended; a result is lost")

    def guard(self, act: Callable[[], object]) -> None:
        """Calls a function and logs what it raises."""
        try:
            act()
        except Exception:
            log.exception("a function failed in the worker's thread")

    def _run(self) -> None:
        while not self._stopped:
            self._run_submitted(wait=not self._busy())
            if self._busy() and not self._stopped:
                self.guard(self._turn)

    def _run_submitted(self, *, wait: bool) -> None:
        try:
            self.guard(self._submitted.get(block=wait))
            while True:
                self.guard(self._submitted.get_nowait())
        except queue.Empty:
            pass
