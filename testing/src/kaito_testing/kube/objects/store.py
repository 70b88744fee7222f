"""The stored objects of one emulated cluster and their history. What a request may do to them is in `verbs`.

Stored objects are never changed in place: each write stores a new object, so that history and readers can share them.
"""

from __future__ import annotations

import base64
import copy
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kaito_testing.kube import errors
from kaito_testing.kube.objects import conversion
from kaito_testing.kube.objects.history import Event, History
from kaito_testing.kube.resources import BUILTIN, CRDS, Resource, of_crd

__all__ = ["Listener", "Page", "Store"]

Object = dict[str, Any]
Key = tuple[str, str]  # (namespace, name)
Predicate = Callable[[Mapping[str, Any]], bool]
Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Page:
    """Objects of a list.

    Attributes:
        items: The objects.
        revision: The revision that the whole list is of.
        next: Where the next page starts, "" on the last one.
        remaining: How many objects are left for later pages.
    """

    items: list[Object]
    revision: int
    next: str = ""
    remaining: int = 0


class Store:
    """All objects of one emulated cluster.

    Args:
        clock: The time that new objects and entries get.

    Attributes:
        history: The events since the last compaction.
        listeners: Called with each event. All hear of an event before any hears of what a listener did about it.
        revision: Revision of the last change.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.history = History()
        self.listeners: list[Listener] = []
        self.revision = 0
        self._clock = clock
        self._resources = {(item.group, item.version, item.plural): item for item in BUILTIN}
        self._objects: dict[tuple[str, str], dict[Key, Object]] = {}
        self._unheard: deque[Event] = deque()

    def now(self) -> str:
        """The time as the API writes it."""
        return self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")

    # Resource types

    def resources(self) -> list[Resource]:
        """Every resource type that is served now."""
        return list(self._resources.values())

    def resource(self, group: str, version: str, plural: str) -> Resource | None:
        """A served resource type, or None."""
        return self._resources.get((group, version, plural))

    def resource_of(self, obj: Mapping[str, Any]) -> Resource:
        """The resource type of a manifest.

        Raises:
            ApiError: 404 if the API does not serve the kind.
        """
        for resource in self._resources.values():
            if (resource.api_version, resource.kind) == (obj.get("apiVersion"), obj.get("kind")):
                return resource
        message = f'no matches for kind "{obj.get("kind")}" in version "{obj.get("apiVersion")}"'
        raise errors.ApiError(404, "NotFound", message)

    # Reads

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """A private copy of an object.

        Raises:
            ApiError: 404 if it does not exist.
        """
        return copy.deepcopy(conversion.from_storage(resource, self.stored(resource, namespace, name)))

    def stored(self, resource: Resource, namespace: str, name: str) -> Object:
        """The stored object itself, which must not be changed.

        Raises:
            ApiError: 404 if it does not exist.
        """
        found = self.objects(resource.storage).get((namespace, name))
        if found is None:
            raise errors.not_found(resource, name)
        return found

    def objects(self, storage: tuple[str, str]) -> dict[Key, Object]:
        """The stored objects of a resource type by (namespace, name); not to be changed."""
        return self._objects.setdefault(storage, {})

    def page(
        self,
        resource: Resource,
        namespace: str = "",
        matches: Predicate = lambda _: True,
        limit: int = 0,
        start: str = "",
    ) -> Page:
        """Objects in order of namespace and name.

        Args:
            resource: Their type.
            namespace: Their namespace, "" for all.
            matches: Which of them.
            limit: How many at most, 0 for all.
            start: `Page.next` of the page before, "" for the first page.

        Raises:
            ApiError: 410 if the page before is older than the history.
        """
        revision, *after = json.loads(base64.urlsafe_b64decode(start)) if start else (self.revision, "", "")
        if revision < self.history.compacted:
            raise errors.continue_expired()
        found = [
            (key, conversion.from_storage(resource, obj))
            for key, obj in sorted(self.objects(resource.storage).items())
            if key > tuple(after) and namespace in ("", key[0]) and matches(obj)
        ]
        page = found[:limit] if limit else found
        more = len(found) - len(page)
        token = base64.urlsafe_b64encode(json.dumps([revision, *page[-1][0]]).encode()).decode() if more else ""
        # The first page's revision: a watch from there misses nothing that came between two pages.
        return Page([obj for _, obj in page], revision, token, more)

    # The one place where the store changes

    def commit(
        self, resource: Resource, old: Object | None, new: Object, *, dry_run: bool = False, deleted: bool = False
    ) -> Object:
        """Stores a state of an object, or removes the object, and calls the listeners.

        Args:
            resource: The type through which it is written.
            old: The stored object, None for a new one.
            new: Its new state; its last one if `deleted`.
            dry_run: Whether to return what would be stored, and store nothing.
            deleted: Whether to remove the object.

        Returns:
            The stored object.
        """
        if dry_run:
            version = (old or {}).get("metadata", {}).get("resourceVersion")
            return new if version is None else {**new, "metadata": {**new["metadata"], "resourceVersion": version}}
        self.revision += 1
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.revision)}}
        key = (new["metadata"].get("namespace", ""), new["metadata"]["name"])
        if deleted:
            self.objects(resource.storage).pop(key, None)
        else:
            self.objects(resource.storage)[key] = new
        if resource.storage == CRDS.storage:
            self._serve(new, deleted=deleted)
        event = Event(self.revision, resource, old, new, deleted)
        self.history.events.append(event)
        self._tell(event)
        return new

    def _tell(self, event: Event) -> None:
        """Calls the listeners with an event, and then with what they have committed meanwhile."""
        self._unheard.append(event)
        if len(self._unheard) > 1:
            return  # a listener commits: the loop below, further up the stack, goes on with it
        try:
            while self._unheard:
                for listener in self.listeners:
                    listener(self._unheard[0])
                self._unheard.popleft()
        finally:
            self._unheard.clear()

    def _serve(self, crd: Object, *, deleted: bool) -> None:
        """Keeps the served resource types in step with a CRD."""
        storage = (crd["spec"]["group"], crd["spec"]["names"]["plural"])
        self._resources = {key: item for key, item in self._resources.items() if item.storage != storage}
        if not deleted:
            self._resources |= {(item.group, item.version, item.plural): item for item in of_crd(crd)}
