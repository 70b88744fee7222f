"""The loop: which Workspace is looked at when. One pass at a time for each, timers, and backoff after failures.

What a pass does is not known here.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kaito_core.controller.backoff import backoff_seconds
from kaito_core.controller.records import Key
from kaito_core.controller.work.fair_slots import Slots

__all__ = ["Loop", "Outcome"]

log = logging.getLogger(__name__)

#: Passes in a row that may write before the next one is put off: a world that somebody else keeps changing back
#: must not be fought at full speed.
_FREE_WRITES = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pass ended.

    Attributes:
        wake_after_seconds: When to look again if nothing happens first; None: never.
        failed: Whether it has to be tried again, later each time.
        acted: Whether it wrote; the next pass follows at once and sees what came of it.
        gone: Whether there is nothing left to look at.
    """

    wake_after_seconds: float | None = None
    failed: bool = False
    acted: bool = False
    gone: bool = False


@dataclass(slots=True)
class _Work:
    """The state of one key. `streak` counts passes in a row that failed or wrote; `urgent` is of the pass to come."""

    dirty: bool = False
    urgent: bool = False
    streak: int = 0
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


class Loop:
    """Runs passes.

    Args:
        run: The pass; gets the key and how many passes in a row have failed or written before it.
        parallel: Passes that may run at the same time.
    """

    def __init__(self, run: Callable[[Key, int], Awaitable[Outcome]], *, parallel: int = 16) -> None:
        self._run = run
        self._slots = Slots(parallel)
        self._work: dict[Key, _Work] = {}
        self._is_open = False

    @property
    def depth(self) -> int:
        """How many keys wait for a pass."""
        return sum(work.dirty for work in self._work.values())

    def open(self) -> None:
        """Starts with the keys that were woken so far."""
        self._is_open = True
        for key in list(self._work):
            self.wake(key)

    def wake(self, key: Key, *, urgent: bool = False) -> None:
        """Looks at a key now, or once more after the pass that is under way; before others where it is urgent."""
        work = self._work.setdefault(key, _Work())
        work.dirty, work.urgent = True, work.urgent or urgent
        self._disarm(work)
        if self._is_open and work.task is None:
            work.task = asyncio.create_task(self._drain(key, work), name=f"workspace {'/'.join(key)}")

    async def close(self) -> None:
        """Ends all passes, which may stop anywhere: the next start takes up what they left."""
        self._is_open = False
        tasks = [work.task for work in self._work.values() if work.task is not None]
        for work in self._work.values():
            self._disarm(work)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._work.clear()

    async def _drain(self, key: Key, work: _Work) -> None:
        outcome = Outcome()
        try:
            while work.dirty:
                async with self._slots.taken(urgent=work.urgent):
                    work.dirty = work.urgent = False
                    outcome = await self._pass(key, work)
                work.streak = work.streak + 1 if outcome.failed or outcome.acted else 0
                if outcome.acted and not outcome.failed and work.streak <= _FREE_WRITES:
                    work.dirty = True
        finally:
            work.task = None
        if outcome.gone:
            self._work.pop(key, None)
        elif (delay := self._delay(outcome, work.streak)) is not None:
            work.timer = asyncio.get_running_loop().call_later(delay, self.wake, key)

    async def _pass(self, key: Key, work: _Work) -> Outcome:
        try:
            return await self._run(key, work.streak)
        except Exception:  # one Workspace must not end the others
            log.exception("the pass for Workspace %s failed", "/".join(key))
            return Outcome(failed=True)

    def _delay(self, outcome: Outcome, streak: int) -> float | None:
        if outcome.failed or outcome.acted:
            return backoff_seconds(streak - 1, random.random())
        return outcome.wake_after_seconds

    @staticmethod
    def _disarm(work: _Work) -> None:
        if work.timer is not None:
            work.timer.cancel()
            work.timer = None
