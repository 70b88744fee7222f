"""Tells plugins how passes ended, in a thread: a hook that blocks holds up neither the Lease nor probes nor passes."""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable

from kaito_core.api import Workspace
from kaito_core.controller.records import Key
from kaito_core.plugins.calls import running_call

__all__ = ["DELETED", "Observers"]

log = logging.getLogger(__name__)

DELETED = "Deleted"  #: outcome of a Workspace that no longer exists
_MOST_WAITING = 1000  # outcomes
_END_SECONDS = 5.0  # for the outcomes that wait when the operator stops
_STUCK_SECONDS = 30.0


class Observers:
    """Calls the hook `kaito_reconciled` where the outcome of a Workspace changed.

    Args:
        call: Calls the hook of all plugins.
    """

    def __init__(self, call: Callable[[Workspace, str], None]) -> None:
        self._call = call
        self._known: dict[Key, tuple[Workspace, str]] = {}
        self._waiting: queue.Queue[tuple[Workspace, str] | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._named = ""  # the call that the log has named as stuck

    def tell(self, workspace: Workspace, outcome: str) -> None:
        """Tells the plugins the outcome of a pass, unless they know it."""
        key = (workspace.namespace, workspace.name)
        known, before = self._known.get(key, (None, ""))
        if known is not None and known.metadata.uid != workspace.metadata.uid:
            self.forget(key)  # it was deleted and made again between two passes
        elif before == outcome:
            return
        self._known[key] = (workspace, outcome)
        self._put(workspace, outcome)

    def forget(self, key: Key) -> None:
        """Tells the plugins that a Workspace is deleted, if they know it."""
        known = self._known.pop(key, None)
        if known is not None:
            self._put(known[0], DELETED)

    async def close(self) -> None:
        """Waits, for 5 seconds at most, until the plugins have been told everything."""
        if self._thread is None:
            return
        with contextlib.suppress(queue.Full):  # then the thread would not end in time anyway
            self._waiting.put_nowait(None)
        thread, self._thread = self._thread, None
        await asyncio.to_thread(thread.join, _END_SECONDS)
        if thread.is_alive():
            function, seconds = running_call(thread.ident or 0)
            log.warning(
                "%s has not returned for %.1f s; %d outcomes were not told", function, seconds, self._waiting.qsize()
            )

    def _put(self, workspace: Workspace, outcome: str) -> None:
        if self._thread is None:
            # A daemon: one that never returns does not keep the process from ending.
            self._thread = threading.Thread(target=self._run, name="observers", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait((workspace, outcome))
            full = False
        except queue.Full:
            full = True
        function, seconds = running_call(self._thread.ident or 0)
        if not function or not (full or seconds > _STUCK_SECONDS):
            self._named = ""
        elif self._named != function:
            self._named = function
            effect = "outcomes are dropped" if full else f"{self._waiting.qsize()} outcomes wait"
            log.warning("%s has not returned for %.1f s; %s", function, seconds, effect)

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                self._call(*item)
            except BaseException:  # a plugin can raise anything; the thread goes on
                log.exception("an outcome could not be told")
