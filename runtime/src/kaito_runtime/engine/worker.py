"""Worker: one thread that takes turns, between which it does what the event loop asks of it. Knows no models."""

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
    """A thread that outlives whatever raises in it: one that has ended would leave every client waiting.

    Args:
        busy: Says whether there is a turn to take; called in the thread.
        turn: Takes it; called in the thread.
    """

    def __init__(self, name: str, busy: Callable[[], bool], turn: Callable[[], None]) -> None:
        self._busy = busy
        self._turn = turn
        self._asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # From the event loop's thread.

    def start(self) -> None:
        """Starts the thread; results come back to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def ask(self, act: Callable[[], None]) -> None:
        """Has something done before the next turn, in the order of asking."""
        self._asked.put(act)

    async def call(self, act: Callable[[], T]) -> T:
        """Has something done before the next turn, and returns its result or raises what it raised."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(set_: Callable[[T], None] | Callable[[Exception], None], value: object) -> None:
            if not done.done():
                set_(value)  # type: ignore[arg-type]

        def work() -> None:
            try:
                result = act()
            except Exception as error:
                self.tell(lambda error=error: settle(done.set_exception, error))  # type: ignore[misc]
            else:
                self.tell(lambda: settle(done.set_result, result))

        self.ask(work)
        return await done

    async def stop(self, last: Callable[[], None], *, patience_seconds: float | None = None) -> None:
        """Does what was asked before, then `last`, and ends the thread, or leaves it to hang after some time."""

        def halt() -> None:
            self._stopped = True
            last()

        if self.alive:
            self.ask(halt)
            await asyncio.to_thread(self._thread.join, patience_seconds)

    # From the worker's own thread.

    def tell(self, act: Callable[[], None]) -> None:
        """Has something done in the event loop's thread."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:  # the event loop has ended, and with it everybody who could have listened
            log.debug("nobody listens any more")

    def guard(self, act: Callable[[], object]) -> None:
        """Does something, and logs what it raises."""
        try:
            act()
        except Exception:
            log.exception("the worker could not do what it was asked to")

    def _run(self) -> None:
        while not self._stopped:
            self._do_what_was_asked(wait=not self._busy())
            if self._busy() and not self._stopped:
                self.guard(self._turn)

    def _do_what_was_asked(self, *, wait: bool) -> None:
        try:
            self.guard(self._asked.get(block=wait))
            while True:
                self.guard(self._asked.get_nowait())
        except queue.Empty:
            pass
