"""What each API key may ask for in a minute, and what it has asked for. Which keys there are is in `keys`."""

import math
import time
from collections.abc import Callable
from contextvars import ContextVar

from kaito_runtime.errors import RequestError

__all__ = ["CURRENT_KEY", "KeyLimits"]

CURRENT_KEY: ContextVar[str] = ContextVar("current_key", default="")
"""Name of the API key of the request that is served; "" where none is required."""


class KeyLimits:
    """Requests and tokens of each key. A limit is a bucket that fills again evenly within a minute.

    Args:
        requests: Most requests of a key in a minute; None for no limit.
        tokens: Most tokens of a key in a minute, of prompts and answers together; None for no limit. A running answer
            is not cut off: what it has too many is missing afterwards.
        clock: Returns seconds.
    """

    def __init__(
        self, requests: int | None = None, tokens: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = {"requests": requests, "tokens": tokens}
        self._clock = clock
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}  # what is left, and when that was so

    def check(self, key: str) -> None:
        """Counts a request.

        Raises:
            RequestError: The key has used up a limit (429); says when it may go on.
        """
        for kind in ("tokens", "requests"):
            limit = self._limits[kind]
            left = self._left(key, kind)
            if limit is not None and left < 1:
                seconds = max(1, math.ceil((1 - left) * 60 / limit))
                message = f"the API key '{key}' may use {limit} {kind} in a minute; try again in {seconds} s"
                raise RequestError(message, status=429, code="rate_limit_exceeded", retry_after_seconds=seconds)
        self._take(key, "requests", 1)

    def add_tokens(self, key: str, count: int) -> None:
        """Counts tokens."""
        if key:
            self._take(key, "tokens", count)

    def _left(self, key: str, kind: str) -> float:
        limit = self._limits[kind]
        if limit is None:
            return math.inf
        left, since = self._buckets.get((key, kind), (float(limit), self._clock()))
        return min(float(limit), left + (self._clock() - since) * limit / 60)

    def _take(self, key: str, kind: str, count: int) -> None:
        if self._limits[kind] is not None:
            self._buckets[key, kind] = (self._left(key, kind) - count, self._clock())
