"""The open watch streams of an API, emulated or behind a proxy, and the lines of a stream. No HTTP here."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Watch", "Watches", "is_true", "watch_event"]


def is_true(query: Mapping[str, str], name: str) -> bool:
    """A flag of a query, in any spelling that the API accepts (Python's clients write "True")."""
    return query.get(name, "").lower() in ("1", "t", "true")


def watch_event(kind: str, obj: Mapping[str, Any]) -> bytes:
    """A line of a watch stream."""
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


class Watch:
    """The state of one open stream.

    Attributes:
        wake: Set when there may be something to send, or the stream has to end.
        end: How it has to end: "drop" or "expire"; "" while it goes on.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.end: str = ""


class Watches:
    """The open watch streams of an API."""

    def __init__(self) -> None:
        self._open: set[Watch] = set()

    def __len__(self) -> int:
        return len(self._open)

    @contextlib.contextmanager
    def open(self) -> Iterator[Watch]:
        """Adds a stream for as long as the block."""
        watch = Watch()
        self._open.add(watch)
        try:
            yield watch
        finally:
            self._open.discard(watch)

    def wake(self) -> None:
        """Lets every stream look for something to send."""
        for watch in self._open:
            watch.wake.set()

    def end(self, how: str) -> None:
        """Ends every open stream: "drop" closes it, "expire" sends 410 Gone first."""
        for watch in self._open:
            watch.end = how
        self.wake()
