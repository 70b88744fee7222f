"""Whether the watches are alive: when each has last shown it, and which has been silent for too long.

A watch whose connection died without a word tells nothing, and looks like one to which nothing happens. kopf connects
anew after an inactivity of its own; should that fail to happen, whatever the reason, /livez fails by what is here.
"""

import time
from collections.abc import Callable
from types import SimpleNamespace

import aiohttp

__all__ = ["Heartbeat"]

#: Parts of the longest silence after which the server ends a watch, so that it has to be opened anew: an opening that
#: succeeds is the sign of life of a watch to which nothing happens.
_RENEWALS = 4
_LONGEST_WATCH_SECONDS = 300


class Heartbeat:
    """The signs of life of all watches.

    Args:
        silence_seconds: How long one may be silent; 0: for ever.
        clock: Monotonic seconds.
    """

    def __init__(self, silence_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._silence_seconds, self._clock = silence_seconds, clock
        self._beats: dict[str, float] = {}  # path -> when its watch was last opened

    @property
    def watch_seconds(self) -> int:
        """How long the server is asked to keep a watch open; whole seconds, as it wants them."""
        if not self._silence_seconds:
            return _LONGEST_WATCH_SECONDS
        return max(1, min(_LONGEST_WATCH_SECONDS, int(self._silence_seconds / _RENEWALS)))

    def beat(self, path: str) -> None:
        """Notes that the watch of a path is alive."""
        self._beats[path] = self._clock()

    def forget(self, plural: str) -> None:
        """Forgets the watches of a resource type that is not served any more: nobody opens them."""
        for path in [path for path in self._beats if path.endswith(f"/{plural}")]:
            del self._beats[path]

    def silent(self) -> dict[str, float]:
        """Returns for how many seconds each watch that has been silent for too long has been so, by path.

        A watch counts from its first opening on: where one is forbidden or the API is down, a new start helps nobody.
        """
        if not self._silence_seconds:
            return {}
        now = self._clock()
        since = {path: now - beat for path, beat in self._beats.items()}
        return {path: seconds for path, seconds in since.items() if seconds > self._silence_seconds}

    def trace(self) -> aiohttp.TraceConfig:
        """Returns what notes the watches that are opened in an HTTP session."""
        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(self._opened)
        return trace

    async def _opened(
        self, _: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestEndParams
    ) -> None:
        if request.response.status == 200 and request.url.query.get("watch") == "true":
            self.beat(request.url.path)
