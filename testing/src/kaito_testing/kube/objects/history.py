"""The changes of a store in order, and how a watcher with a selector sees them."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kaito_testing.kube import errors
from kaito_testing.kube.resources import Resource

__all__ = ["Event", "History"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One change.

    Attributes:
        revision: Of the store after it.
        resource: The type through which it was written.
        old: The object before, None for a new one.
        new: The object after; its last state if `deleted`.
        deleted: Whether the object is gone.
    """

    revision: int
    resource: Resource
    old: Object | None
    new: Object
    deleted: bool = False

    def seen_by(self, matches: Callable[[Mapping[str, Any]], bool]) -> str | None:
        """The type of the watch event for a watcher of the objects that match, None if it gets none."""
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
    compacted: int = 0  # revision up to which events are forgotten

    def compact(self, revision: int) -> None:
        """Forgets the events up to a revision, as etcd does after some minutes."""
        self.compacted = max(self.compacted, revision)
        self.events = [event for event in self.events if event.revision > revision]

    def since(self, revision: int, storage: tuple[str, str]) -> Iterator[Event]:
        """The events of one resource type after a revision, oldest first.

        Raises:
            ApiError: 410 if some of them are forgotten.
        """
        if revision < self.compacted:
            raise errors.expired(revision, self.compacted)
        first = bisect.bisect_right(self.events, revision, key=lambda event: event.revision)
        return (event for event in self.events[first:] if event.resource.storage == storage)
