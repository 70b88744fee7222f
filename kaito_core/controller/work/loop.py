"""The loop: when a pass runs for which Workspace. One at a time for each, with timers and a backoff after failures.

What a pass does is in `reconciler`.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kaito_core.controller.backoff import backoff_seconds
from kaito_core.controller.records import Key
from kaito_core.controller.work.fair_slots import FairSlots

__all__ = ["Loop", "Outcome"]

log = logging.getLogger(__name__)

#: Passes in a row that may write before the backoff begins: somebody else may be undoing each write.
_FREE_WRITES = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a pass ended.

    Attributes:
        wake_after_seconds: When the next pass runs if no event causes one before; None: never.
        failed: Whether it must be repeated, after a longer wait each time.
        acted: Whether it wrote; the next pass follows at once and sees the result.
        gone: Whether the Workspace no longer exists.
    """

    wake_after_seconds: float | None = None
    failed: bool = False
    acted: bool = False
    gone: bool = False


@dataclass(slots=True)
class _Work:
    """The state of one key.

    Attributes:
        dirty: Whether a pass is due.
        urgent: Whether that pass goes before others.
        streak: Passes in a row that failed or wrote.
        task: Runs the passes while any is due.
        timer: Wakes the key when nothing else does.
    """

    dirty: bool = False
    urgent: bool = False
    streak: int = 0
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


class Loop:
    """Runs passes.

    Args:
        run: The pass; is given the key and the number of passes in a row before it that failed or wrote.
        parallel: Most passes that run at the same time.
    """

    def __init__(self, run: Callable[[Key, int], Awaitable[Outcome]], *, parallel: int = 16) -> None:
        self._run = run
        self._slots = FairSlots(parallel)
        self._work: dict[Key, _Work] = {}
        self._is_open = False

    @property
    def depth(self) -> int:
        """The number of keys that wait for a pass."""
        return sum(work.dirty for work in self._work.values())

    def open(self) -> None:
        """Starts passes, first for the keys that were woken so far."""
        self._is_open = True
        for key in list(self._work):
            self.wake(key)

    def wake(self, key: Key, *, urgent: bool = False) -> None:
        """Runs a pass for a key now, or another one after the current; before others where it is urgent."""
        work = self._work.setdefault(key, _Work())
        work.dirty, work.urgent = True, work.urgent or urgent
        self._disarm(work)
        if self._is_open and work.task is None:
            work.task = asyncio.create_task(self._drain(key, work), name=f"workspace {'/'.join(key)}")

    async def close(self) -> None:
        """Cancels all passes wherever they are: after the next start another pass completes what they began."""
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
        except (Exception, SystemExit):  # of whatever code it runs; the passes of other Workspaces go on
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
