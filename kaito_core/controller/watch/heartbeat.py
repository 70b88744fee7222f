"""Detects dead watches: when each was last opened, and which have been silent for too long.

A watch whose connection died looks like one for which nothing happens. kopf reconnects after some inactivity; where
that fails for whatever reason, /livez fails by what is recorded here.
"""

import time
from collections.abc import Callable
from types import SimpleNamespace

import aiohttp

__all__ = ["Heartbeat"]

#: The server ends a watch this often within the longest silence, so that it must be opened again: a successful opening
#: is the only sign of life of a watch for which nothing happens.
_RENEWALS = 4
_LONGEST_WATCH_SECONDS = 300


class Heartbeat:
    """When each watch was last opened.

    Args:
        silence_seconds: Longest silence of a watch that is alive; 0 for no limit.
        clock: Monotonic seconds.
    """

    def __init__(self, silence_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._silence_seconds, self._clock = silence_seconds, clock
        self._beats: dict[str, float] = {}  # path -> when its watch was last opened

    @property
    def watch_seconds(self) -> int:
        """How long the server is asked to keep a watch open; whole seconds, as the API requires."""
        if not self._silence_seconds:
            return _LONGEST_WATCH_SECONDS
        return max(1, min(_LONGEST_WATCH_SECONDS, int(self._silence_seconds / _RENEWALS)))

    def beat(self, path: str) -> None:
        """Records that the watch of a path is alive."""
        self._beats[path] = self._clock()

    def forget(self, plural: str) -> None:
        """Forgets the watches of a resource type that the cluster does not serve any more; they stay closed."""
        for path in [path for path in self._beats if path.endswith(f"/{plural}")]:
            del self._beats[path]

    def silent(self) -> dict[str, float]:
        """Returns the seconds of silence of each watch that has been silent for too long, by path.

        A watch counts from its first opening on: a restart does not help where it is forbidden or the API is down.
        """
        if not self._silence_seconds:
            return {}
        now = self._clock()
        since = {path: now - beat for path, beat in self._beats.items()}
        return {path: seconds for path, seconds in since.items() if seconds > self._silence_seconds}

    def trace(self) -> aiohttp.TraceConfig:
        """Returns a trace that records the watches opened in an HTTP session."""
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._opened)
        return trace

    async def _opened(
        self, _: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestEndParams
    ) -> None:
        if request.response.status == 200 and request.url.query.get("watch") == "true":
            self.beat(request.url.path)
