"""An index of a store: where each object is, and which objects name it as their owner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from kaito_testing.kube.objects.history import Event
from kaito_testing.kube.objects.store import Store
from kaito_testing.kube.resources import Resource

__all__ = ["Found", "Owners", "owner_uids"]

Object = dict[str, Any]
Found = tuple[Resource, Object]  # an object with the type through which it was last written


class Owners:
    """Where objects are by uid, and what they own. It is a listener: `notice` has to be called with every event."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places: dict[str, tuple[Resource, str, str]] = {}  # uid -> (type, namespace, name)
        self._dependents: defaultdict[str, set[str]] = defaultdict(set)  # owner's uid -> uids
        for resource in store.resources():
            for obj in store.objects(resource.storage).values():
                self._add(resource, obj)

    def notice(self, event: Event) -> None:
        """Follows a change."""
        for owner in owner_uids(event.old) if event.old else ():
            self._dependents[owner].discard(event.new["metadata"]["uid"])
        if event.deleted:
            self._places.pop(event.new["metadata"]["uid"], None)
        else:
            self._add(event.resource, event.new)

    def _add(self, resource: Resource, obj: Object) -> None:
        meta = obj["metadata"]
        self._places[meta["uid"]] = (resource, meta.get("namespace", ""), meta["name"])
        for owner in owner_uids(obj):
            self._dependents[owner].add(meta["uid"])

    def exists(self, uid: str) -> bool:
        """Whether there is an object with the uid."""
        return uid in self._places

    def find(self, uid: str) -> Found | None:
        """An object by its uid, None if it is gone."""
        if uid not in self._places:
            return None
        resource, *key = self._places[uid]
        obj = self._store.objects(resource.storage).get((key[0], key[1]))
        return (resource, obj) if obj is not None and obj["metadata"]["uid"] == uid else None

    def dependents(self, uid: str) -> list[Found]:
        """The objects that name an object as their owner, by name; not to be changed."""
        found = [self.find(dependent) for dependent in self._dependents[uid]]
        mine = [item for item in found if item is not None and uid in owner_uids(item[1])]
        return sorted(mine, key=lambda item: str(item[1]["metadata"]["name"]))

    def of_kind(self, uid: str, kind: str) -> list[Object]:
        """The dependents of one kind, by name; not to be changed."""
        return [obj for resource, obj in self.dependents(uid) if resource.kind == kind]

    def in_namespace(self, namespace: str) -> Iterator[Found]:
        """The objects of a namespace."""
        for uid, (resource, place, _) in list(self._places.items()):
            if resource.namespaced and place == namespace and (found := self.find(uid)):
                yield found


def owner_uids(obj: Object) -> list[str]:
    """The uids of an object's owners."""
    return [reference["uid"] for reference in obj["metadata"].get("ownerReferences") or ()]
