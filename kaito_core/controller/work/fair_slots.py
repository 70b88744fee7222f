"""A limit to the passes that run at the same time, with a queue that lets urgent ones first without starving others."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["FairSlots"]

#: Of so many slots in a row at least one goes to the others, so that urgent ones never starve them.
_TURNS = 8


class FairSlots:
    """Gives slots to the urgent first, and among equals in the order of their arrival.

    Args:
        count: Number of slots.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        self._turn = 0

    @asynccontextmanager
    async def taken(self, *, urgent: bool) -> AsyncIterator[None]:
        """Holds a slot within the block; waits for one first."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(self._urgent if urgent else self._others)
        try:
            yield
        finally:
            self._give_back()

    async def _wait(self, queue: deque[asyncio.Future[None]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given the slot just before
                self._give_back()
            raise

    def _give_back(self) -> None:
        while self._urgent or self._others:
            turn = self._next().popleft()
            if not turn.done():  # else it was cancelled
                turn.set_result(None)
                return
        self._free += 1

    def _next(self) -> deque[asyncio.Future[None]]:
        self._turn = (self._turn + 1) % _TURNS
        others_first = self._turn == 0
        return self._others if self._others and (others_first or not self._urgent) else self._urgent
