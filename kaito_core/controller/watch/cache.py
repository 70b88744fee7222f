"""Watch caches: what the API last said about the objects that the operator watches. No I/O here."""

import builtins
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kaito_core.api import NODES, KubeObject, ResourceType
from kaito_core.api.workload import WORKSPACE_LABEL, WORKSPACE_NAMESPACE_LABEL
from kaito_core.api.workspace.model import WORKSPACES

__all__ = ["Cache", "Change", "Key", "Watched", "key_of", "watched_resources"]

Key = tuple[str, str]  #: namespace and name of a Workspace

_TOMBSTONES = 4096


@dataclass(frozen=True, slots=True)
class Watched:
    """A kind that is watched.

    Attributes:
        resource: The kind.
        labelled: Whether only objects that name a Workspace in their labels are watched.
    """

    resource: ResourceType
    labelled: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """An object that is not what it was. `old` is None for a new one, `new` for one that is gone."""

    resource: ResourceType
    old: KubeObject | None
    new: KubeObject | None


def watched_resources(children: Iterable[ResourceType], extra: Iterable[ResourceType]) -> tuple[Watched, ...]:
    """Returns what the operator watches: Workspaces, nodes, the children's kinds and what providers ask for."""
    labelled = dict.fromkeys((*children, *extra))
    return (Watched(WORKSPACES, False), Watched(NODES, False), *map(Watched, labelled))


def key_of(obj: KubeObject) -> Key | None:
    """Returns the Workspace that an object's labels name, or None."""
    metadata = obj["metadata"]
    labels = metadata.get("labels") or {}
    name = labels.get(WORKSPACE_LABEL)
    # Objects outside namespaces, such as NodeClaims, name the namespace in a label of its own.
    namespace = metadata.get("namespace") or labels.get(WORKSPACE_NAMESPACE_LABEL)
    return (namespace, name) if name and namespace else None


def _version(obj: KubeObject) -> int:
    text = str(obj["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0


def _identity(obj: KubeObject) -> Key:
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


class Cache:
    """Objects by kind and name, and by the Workspace that they belong to. Holds no object's managedFields."""

    def __init__(self, watched: Iterable[Watched]) -> None:
        self.watched = {item.resource: item for item in watched}
        self._objects: dict[ResourceType, dict[Key, KubeObject]] = {resource: {} for resource in self.watched}
        self._owned: dict[tuple[ResourceType, Key], dict[Key, KubeObject]] = {}
        # An answer to a write may come in after the news that its object is gone.
        self._gone: dict[str, int] = {}  # resource versions at the end, by uid, oldest first

    def is_complete(self, resource: ResourceType) -> bool:
        """Returns whether an object that is not here does not exist."""
        return resource in self.watched and not self.watched[resource].labelled

    def answers(self, resource: ResourceType, labels: Mapping[str, str] | None) -> bool:
        """Returns whether a list with these labels can be answered from here."""
        return self.is_complete(resource) or (resource in self.watched and WORKSPACE_LABEL in (labels or {}))

    def get(self, resource: ResourceType, name: str, namespace: str = "") -> KubeObject | None:
        """Returns an object, or None where it is not here."""
        place = (namespace if resource.namespaced else "", name)
        return self._objects.get(resource, {}).get(place)

    def list(
        self, resource: ResourceType, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[KubeObject]:
        """Returns the objects with all the labels, of all namespaces where none is named, sorted by name."""
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
        """Takes in an object; None where it is no news. Kinds that are not watched are not kept."""
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
        self._unlink(resource, old)
        self._objects[resource][_identity(kept)] = kept
        if owner := key_of(kept):
            self._owned.setdefault((resource, owner), {})[_identity(kept)] = kept
        return Change(resource, old, kept)

    def remove(self, resource: ResourceType, obj: KubeObject, *, gone: bool = False) -> Change | None:
        """Forgets an object; None where it was not here. Of one that is `gone` older news is none.

        A watch says so too of an object that has lost the label it is watched by, and may get it back.
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
        """Takes in a whole listing, as of a resource version: what it lacks is forgotten unless it is newer."""
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
