"""What happened to the objects, in order, and how a watcher with a selector sees it."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kaito_testing.kube import errors

__all__ = ["Event", "History"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `old` is None for a new object; `deleted` says that `new` is the last state of an object."""

    revision: int
    storage: tuple[str, str]
    old: Object | None
    new: Object
    deleted: bool = False

    def seen_by(self, matches: Callable[[Mapping[str, Any]], bool]) -> str | None:
        """The watch event type for a watcher that wants objects that match; None where it sees nothing."""
        before = self.old is not None and matches(self.old)
        now = not self.deleted and matches(self.new)
        if before and now:
            return "MODIFIED"
        if now:
            return "ADDED"
        return "DELETED" if before else None


@dataclass(slots=True)
class History:
    """The events since the last compaction."""

    events: list[Event] = field(default_factory=list)
    compacted: int = 0  # revision up to which events are gone

    def compact(self, revision: int) -> None:
        """Forgets the events up to a revision, as a real server does after some minutes."""
        self.compacted = max(self.compacted, revision)
        self.events = [event for event in self.events if event.revision > revision]

    def since(self, revision: int, storage: tuple[str, str]) -> Iterator[Event]:
        """The events of one resource type after a revision, oldest first.

        Raises:
            ApiError: 410 where some of them are no longer kept.
        """
        if revision < self.compacted:
            raise errors.expired(revision, self.compacted)
        first = bisect.bisect_right(self.events, revision, key=lambda event: event.revision)
        return (event for event in self.events[first:] if event.storage == storage)
