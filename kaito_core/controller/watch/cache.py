"""The watch caches: the objects that the operator watches, as the API last reported them. No I/O here."""

import builtins
from collections.abc import Iterable, Mapping, Sequence

from kaito_core.api import NODES, KubeObject, ResourceType
from kaito_core.api.workload import WORKSPACE_LABEL, WORKSPACE_NAMESPACE_LABEL
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.controller.records import Change, Key, Watched
from kaito_core.reconcile.objects.scaling import SCALE

__all__ = ["Cache", "key_of", "watched_resources"]

_TOMBSTONES = 4096  # deleted objects that are remembered


def watched_resources(children: Iterable[ResourceType], extra: Iterable[ResourceType]) -> tuple[Watched, ...]:
    """Returns what the operator watches: Workspaces, nodes, their children and what node providers ask for."""
    labelled = dict.fromkeys((*children, *extra))
    return (Watched(WORKSPACES, False), Watched(NODES, False), *map(Watched, labelled))


def key_of(obj: KubeObject) -> Key | None:
    """Returns the Workspace that the labels of an object name, or None."""
    metadata = obj["metadata"]
    labels = metadata.get("labels") or {}
    name = labels.get(WORKSPACE_LABEL)
    # Objects without a namespace, such as NodeClaims, name the Workspace's in another label.
    namespace = metadata.get("namespace") or labels.get(WORKSPACE_NAMESPACE_LABEL)
    return (namespace, name) if name and namespace else None


def _version(obj: KubeObject) -> int:
    text = str(obj["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0


def _identity(obj: KubeObject) -> Key:
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


class Cache:
    """Objects by resource type and name, and by Workspace; of their managedFields, which are large, who scaled them.

    Args:
        watched: The resource types to keep.
    """

    def __init__(self, watched: Iterable[Watched]) -> None:
        self.watched = {item.resource: item for item in watched}
        self._objects: dict[ResourceType, dict[Key, KubeObject]] = {resource: {} for resource in self.watched}
        self._owned: dict[tuple[ResourceType, Key], dict[Key, KubeObject]] = {}
        # The answer to a write can arrive after the watch has reported the object deleted.
        self._gone: dict[str, int] = {}  # last resource versions of deleted objects by uid, oldest first

    def is_complete(self, resource: ResourceType) -> bool:
        """Returns whether every object of the type is kept, so that one that is missing does not exist."""
        return resource in self.watched and not self.watched[resource].labelled

    def answers(self, resource: ResourceType, labels: Mapping[str, str] | None) -> bool:
        """Returns whether a list with these labels can be answered from the cache."""
        return self.is_complete(resource) or (resource in self.watched and WORKSPACE_LABEL in (labels or {}))

    def get(self, resource: ResourceType, name: str, namespace: str = "") -> KubeObject | None:
        """Returns an object, or None where it is not in the cache."""
        place = (namespace if resource.namespaced else "", name)
        return self._objects.get(resource, {}).get(place)

    def list(
        self, resource: ResourceType, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[KubeObject]:
        """Returns the objects with all the labels, sorted by name; "" for all namespaces."""
        wanted = dict(labels or {})
        place = namespace or wanted.get(WORKSPACE_NAMESPACE_LABEL, "")
        objects = self._objects.get(resource, {})
        if place and WORKSPACE_LABEL in wanted:
            objects = self._owned.get((resource, (place, wanted[WORKSPACE_LABEL])), {})
        return [
            obj
            for identity, obj in sorted(objects.items())
            if (not namespace or not resource.namespaced or identity[0] == namespace)
            and wanted.items() <= (obj["metadata"].get("labels") or {}).items()
        ]

    def put(self, resource: ResourceType, obj: KubeObject) -> Change | None:
        """Stores an object; returns None where it, or a newer version, is stored already or its type is not watched."""
        if resource not in self.watched:
            return None
        if _version(obj) <= self._gone.get(obj["metadata"].get("uid", ""), -1):
            return None
        if self.watched[resource].labelled and key_of(obj) is None:
            return self.remove(resource, obj)
        old = self._objects[resource].get(_identity(obj))
        if old is not None and _version(obj) <= _version(old):
            return None
        kept = {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}
        if scaled := [
            entry for entry in obj["metadata"].get("managedFields") or () if entry.get("subresource") == SCALE
        ]:
            kept["metadata"]["managedFields"] = scaled
        self._unlink(resource, old)
        self._objects[resource][_identity(kept)] = kept
        if owner := key_of(kept):
            self._owned.setdefault((resource, owner), {})[_identity(kept)] = kept
        return Change(resource, old, kept)

    def remove(self, resource: ResourceType, obj: KubeObject, *, gone: bool = False) -> Change | None:
        """Removes an object; returns None where it was not in the cache.

        Args:
            resource: Its type.
            obj: The object, with its last resource version.
            gone: The watch reports it deleted, so versions that are not newer are not stored again. A watch also
                reports an object deleted that lost the label it is watched by; it can come back with a newer version.
        """
        if gone:
            self._gone[obj["metadata"].get("uid", "")] = _version(obj)
            if len(self._gone) > _TOMBSTONES:
                del self._gone[next(iter(self._gone))]
        old = self._objects.get(resource, {}).get(_identity(obj))
        if old is None or old["metadata"].get("uid") != obj["metadata"].get("uid"):
            return None
        del self._objects[resource][_identity(old)]
        self._unlink(resource, old)
        return Change(resource, old, None)

    def replace(
        self, resource: ResourceType, objects: Sequence[KubeObject], version: int, namespace: str = ""
    ) -> builtins.list[Change]:
        """Stores a whole listing, as of a resource version; removes what it lacks, unless that is newer."""
        listed = {_identity(obj) for obj in objects}
        absent = [
            obj
            for identity, obj in self._objects[resource].items()
            if identity not in listed and (not namespace or identity[0] == namespace) and _version(obj) <= version
        ]
        changes = [self.put(resource, obj) for obj in objects]
        changes += [self.remove(resource, obj) for obj in absent]
        return [change for change in changes if change is not None]

    def _unlink(self, resource: ResourceType, obj: KubeObject | None) -> None:
        owner = key_of(obj) if obj is not None else None
        if obj is None or owner is None:
            return
        owned = self._owned.get((resource, owner), {})
        owned.pop(_identity(obj), None)
        if not owned:
            self._owned.pop((resource, owner), None)
