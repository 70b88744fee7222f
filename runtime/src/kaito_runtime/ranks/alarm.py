"""Alarm: what reaches the other ranks while they wait in a collective of the model for one that has failed.

Messages (`group`) do not: they wait behind the collective. The alarm is a key in the store where the ranks met, which
each of them looks at from a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from torch.distributed import Store  # type: ignore[attr-defined]

from kaito_runtime.errors import one_line

__all__ = ["Alarm"]

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0  # a pass that fails on all ranks is settled by messages, in much less
_LOOK_SECONDS = 1.0


class Alarm:
    """One rank's end of it.

    Args:
        store: Where all ranks can read and write.
        rank: This rank.
        size: Number of ranks.
        on_lost: Called once, in the alarm's thread, with the reason why the ranks cannot go on.
        clock: Returns seconds that only grow.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        on_lost: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._rank = rank
        self._keys = [f"alarm/{other}" for other in range(size)]
        self._on_lost = on_lost
        self._clock = clock
        self._since: dict[str, tuple[str, float]] = {}
        self._rung = 0
        self._stopped = threading.Event()

    def watch(self) -> None:
        """Looks once a second from now on, in a thread that ends with the process."""
        threading.Thread(target=self._watch, name="alarm", daemon=True).start()

    def ring(self, error: BaseException) -> None:
        """Says that a pass has failed on this rank."""
        self._rung += 1
        self._write(f"{self._rung} {one_line(error)}")

    def settle(self) -> None:
        """Says that all ranks know, and go on."""
        self._write("")

    def look(self) -> bool:
        """Looks at what the ranks say; returns whether one has failed and the others have not settled it in time."""
        for rank, key in enumerate(self._keys):
            words = self._store.get(key).decode() if self._store.check([key]) else ""
            before, since = self._since.get(key, ("", 0.0))
            if not words:
                self._since.pop(key, None)
            elif words != before:
                self._since[key] = words, self._clock()
            elif self._clock() - since >= PATIENCE_SECONDS:
                self._on_lost(f"a pass failed on rank {rank} alone: {words.partition(' ')[2]}")
                return True
        return False

    def _write(self, words: str) -> None:
        try:
            self._store.set(self._keys[self._rank], words)
        except RuntimeError as error:  # the store's process is gone, which the others notice, too
            log.error("the other ranks cannot be told: %s", one_line(error))

    def stop(self) -> None:
        """Ends the looks: the ranks end as they should."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            try:
                if self.look():
                    return
            except RuntimeError as error:
                # Ranks that wait for a message notice it by themselves, and end in a better way.
                if not self._stopped.wait(PATIENCE_SECONDS):
                    self._on_lost(f"the store where the ranks met is gone: {one_line(error)}")
                return
