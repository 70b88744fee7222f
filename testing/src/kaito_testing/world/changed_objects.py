"""Which workloads and pods a change of the store concerns, so that simulated controllers look at no others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kaito_testing.kube.errors import ApiError
from kaito_testing.kube.objects.history import Event
from kaito_testing.kube.objects.resources import BY_KIND, Resource
from kaito_testing.kube.objects.store import Store

__all__ = ["Concerned"]

Object = dict[str, Any]
Key = tuple[str, str]  # (namespace, name)

_NODES, _PODS = BY_KIND["Node"], BY_KIND["Pod"]
#: In the order in which they are looked at: owners before what they own.
_LOOKED_AT = tuple(BY_KIND[kind] for kind in ("Deployment", "ReplicaSet", "StatefulSet", "Pod"))


class Concerned:
    """What is to be looked at. It reads the store's history from where it has come to; at first, all is concerned."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read = 0
        self._found: dict[Resource, set[Key]] = {}
        self.all()

    def all(self) -> None:
        """Takes everything for concerned."""
        self._read = self._store.revision
        self._found = {resource: set(self._store.objects(resource.storage)) for resource in _LOOKED_AT}

    def take(self) -> list[tuple[Resource, Key]]:
        """Returns what is concerned by what has happened since the last time, by kind and name."""
        try:
            for resource in (*_LOOKED_AT, _NODES):
                for event in self._store.history.since(self._read, resource.storage):
                    self._note(resource, event)
            self._read = self._store.revision
        except ApiError:  # the history is forgotten, as a test wanted
            self.all()
        found = [(resource, key) for resource in _LOOKED_AT for key in sorted(self._found[resource])]
        self._found = {resource: set() for resource in _LOOKED_AT}
        return found

    def _note(self, resource: Resource, event: Event) -> None:
        meta = event.new["metadata"]
        if resource is _NODES:
            self._note_pods(node=meta["name"])
            return
        namespace = meta.get("namespace", "")
        self._found[resource].add((namespace, meta["name"]))
        for owner in _owners(event.new):
            if (kind := BY_KIND.get(owner["kind"])) in self._found:
                self._found[kind].add((namespace, owner["name"]))
        if event.deleted and resource is _PODS:
            self._note_pods()  # what it had is free

    def _note_pods(self, node: str = "") -> None:
        """Pods without a node, and those of one."""
        pods: Iterable[tuple[Key, Object]] = self._store.objects(_PODS.storage).items()
        self._found[_PODS] |= {key for key, pod in pods if pod["spec"].get("nodeName", "") in ("", node)}


def _owners(obj: Object) -> list[Object]:
    return obj["metadata"].get("ownerReferences") or []
