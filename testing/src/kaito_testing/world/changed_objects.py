"""Which workloads and pods a change concerns, so that simulated controllers look at no others."""

from __future__ import annotations

from typing import Any

from kaito_testing.kube.objects.history import Event
from kaito_testing.kube.objects.store import Store
from kaito_testing.kube.resources import BY_KIND, Resource

__all__ = ["ChangedObjects"]

Object = dict[str, Any]
Key = tuple[str, str]  # (namespace, name)

_NODES, _PODS = BY_KIND["Node"], BY_KIND["Pod"]
#: In the order in which they are looked at: owners before what they own.
_LOOKED_AT = tuple(BY_KIND[kind] for kind in ("Deployment", "ReplicaSet", "StatefulSet", "Pod"))


class ChangedObjects:
    """The objects that controllers have to look at: at first all, then those that events concern.

    It is a listener of the store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._found: dict[Resource, set[Key]] = {}
        self.add_all()

    def add_all(self) -> None:
        """Adds all objects."""
        self._found = {resource: set(self._store.objects(resource.storage)) for resource in _LOOKED_AT}

    def take(self) -> list[tuple[Resource, Key]]:
        """Returns the objects that were added since the last call, by kind and name."""
        found = [(resource, key) for resource in _LOOKED_AT for key in sorted(self._found[resource])]
        self._found = {resource: set() for resource in _LOOKED_AT}
        return found

    def notice(self, event: Event) -> None:
        """Adds what an event concerns: the object, its owners, and the pods that may fit on a node now."""
        meta = event.new["metadata"]
        if event.resource.storage == _NODES.storage:
            self._add_pods(node=meta["name"])
            return
        resource = next((item for item in _LOOKED_AT if item.storage == event.resource.storage), None)
        if resource is None:
            return
        namespace = meta.get("namespace", "")
        self._found[resource].add((namespace, meta["name"]))
        for owner in meta.get("ownerReferences") or ():
            if (kind := BY_KIND.get(owner["kind"])) in self._found:
                self._found[kind].add((namespace, owner["name"]))
        if event.deleted and resource is _PODS:
            self._add_pods()  # the GPUs that it had are free

    def _add_pods(self, node: str = "") -> None:
        """Adds the pods without a node, and those on one."""
        for key, pod in self._store.objects(_PODS.storage).items():
            if pod["spec"].get("nodeName", "") in ("", node):
                self._found[_PODS].add(key)
