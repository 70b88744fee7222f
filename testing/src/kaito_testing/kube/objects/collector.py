"""Deletion: marks, finalizers, owners and what goes with them. Garbage is collected at once, not some time later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kaito_testing.kube import errors
from kaito_testing.kube.objects import conversion
from kaito_testing.kube.objects.options import DeleteOptions
from kaito_testing.kube.objects.resources import CRDS, NAMESPACES, Resource

if TYPE_CHECKING:
    from kaito_testing.kube.objects.store import Store

__all__ = ["Collector"]

Object = dict[str, Any]
Place = tuple[Resource, str, str]  # (resource, namespace, name)

_FOREGROUND = "foregroundDeletion"
_CRD_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


class Collector:
    """Removes objects, and whatever has to follow them, from a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places: dict[str, Place] = {}  # uid -> where the object is
        self._dependents: dict[str, set[str]] = {}  # owner uid -> uids

    def delete(self, resource: Resource, namespace: str, name: str, options: DeleteOptions) -> Object:
        """Marks or removes an object; answers with the object or a Status, as the API does.

        Raises:
            ApiError: 404 where it is absent, 409 where a precondition fails.
        """
        obj = self._store.stored(resource, namespace, name)
        meta = obj["metadata"]
        if options.uid not in ("", meta["uid"]):
            raise errors.precondition(resource, name, "UID", options.uid, meta["uid"])
        if options.resource_version not in ("", meta["resourceVersion"]):
            version = meta["resourceVersion"]
            raise errors.precondition(resource, name, "ResourceVersion", options.resource_version, version)
        if options.dry_run:
            return self._success(resource, obj)
        if options.propagation == "Orphan":
            self._orphan(meta["uid"])
        grace = self._grace(resource, obj, options)
        marked = self._mark(resource, obj, grace, foreground=options.propagation == "Foreground")
        if not self.finished(marked):
            if marked is not obj:
                self._store.commit(resource, obj, marked)
            self._empty(resource, marked)
            return conversion.from_storage(resource, marked)
        self._store.commit(resource, obj, marked, deleted=True)
        return conversion.from_storage(resource, marked) if resource.returns_deleted else self._success(resource, obj)

    def finished(self, obj: Object) -> bool:
        """Whether an object that is being deleted has nothing left to wait for."""
        meta = obj["metadata"]
        if "deletionTimestamp" not in meta or meta.get("finalizers"):
            return False
        if obj["kind"] == "Namespace":
            return not obj["spec"].get("finalizers")
        return not meta.get("deletionGracePeriodSeconds")

    def dependents(self, uid: str, kind: str) -> list[Object]:
        """The stored objects of a kind that name an owner, by name; not to be changed."""
        places = [self._places[dependent] for dependent in self._dependents.get(uid, ()) if dependent in self._places]
        mine = sorted(place[1:] for place in places if place[0].kind == kind)
        resource = next((place[0] for place in places if place[0].kind == kind), None)
        return [self._store.stored(resource, *place) for place in mine] if resource is not None else []

    def notice(self, resource: Resource, old: Object | None, new: Object, *, deleted: bool) -> None:
        """Follows a change: keeps the index of owners, and collects what the change set free."""
        uid, owners = new["metadata"]["uid"], _owner_uids(new)
        for owner in _owner_uids(old) if old else ():
            self._dependents.get(owner, set()).discard(uid)
        if deleted:
            self._places.pop(uid, None)
            self._release(uid)
            self._settle(new)
            return
        self._places[uid] = (resource, new["metadata"].get("namespace", ""), new["metadata"]["name"])
        for owner in owners:
            self._dependents.setdefault(owner, set()).add(uid)
        if owners and not any(owner in self._places for owner in owners):
            self._remove(uid)

    def _mark(self, resource: Resource, obj: Object, grace: int, *, foreground: bool) -> Object:
        meta = dict(obj["metadata"])
        extra = [_FOREGROUND] if foreground and self._dependents.get(meta["uid"]) else []
        extra += [_CRD_CLEANUP] if resource.storage == CRDS.storage and self._custom_objects(obj) else []
        extra = [name for name in extra if name not in meta.get("finalizers", ())]
        if "deletionTimestamp" in meta and not extra and grace >= meta.get("deletionGracePeriodSeconds", 0):
            return obj
        if "deletionTimestamp" not in meta and resource.generation:
            meta["generation"] += 1
        meta.setdefault("deletionTimestamp", self._store.now())
        if resource.storage != NAMESPACES.storage:
            meta["deletionGracePeriodSeconds"] = grace
        if extra:
            meta["finalizers"] = [*meta.get("finalizers", ()), *extra]
        marked = {**obj, "metadata": meta}
        if resource.storage == NAMESPACES.storage:
            marked["status"] = {"phase": "Terminating"}
            if not self._namespaced(meta["name"]):
                marked["spec"] = {}
        return marked

    def _grace(self, resource: Resource, obj: Object, options: DeleteOptions) -> int:
        """Seconds that a pod gets: only one on a node has something to shut down."""
        if resource.storage != ("", "pods") or not obj["spec"].get("nodeName"):
            return 0
        if options.grace_seconds is not None:
            return options.grace_seconds
        return int(obj["spec"].get("terminationGracePeriodSeconds", 30))

    def _empty(self, resource: Resource, obj: Object) -> None:
        """Deletes what has to go before the marked object may."""
        meta = obj["metadata"]
        if _FOREGROUND in meta.get("finalizers", ()):
            for uid in list(self._dependents.get(meta["uid"], ())):
                self._remove(uid)
        if resource.storage == NAMESPACES.storage:
            for uid in self._namespaced(meta["name"]):
                self._remove(uid)
        if _CRD_CLEANUP in meta.get("finalizers", ()):
            for uid in self._custom_objects(obj):
                self._remove(uid)

    def _release(self, uid: str) -> None:
        """Deletes the dependents of an object that is gone, or their reference where other owners live."""
        for dependent in list(self._dependents.pop(uid, ())):
            if dependent not in self._places:
                continue
            resource, namespace, name = self._places[dependent]
            obj = self._store.stored(resource, namespace, name)
            if any(owner in self._places for owner in _owner_uids(obj)):
                self._store.commit(resource, obj, _without_owner(obj, uid))
            else:
                self._remove(dependent)

    def _settle(self, gone: Object) -> None:
        """Finishes what waited for an object that is gone: an owner, its namespace, its CRD."""
        space = self._store.objects(NAMESPACES.storage).get(("", gone["metadata"].get("namespace", "")))
        waiting = [*_owner_uids(gone), *([space["metadata"]["uid"]] if space else [])]
        waiting += [crd["metadata"]["uid"] for crd in self._store.objects(CRDS.storage).values()]
        for uid in waiting:
            if uid in self._places:
                self._finish(*self._places[uid])

    def _finish(self, resource: Resource, namespace: str, name: str) -> None:
        obj = self._store.stored(resource, namespace, name)
        meta = dict(obj["metadata"])
        if "deletionTimestamp" not in meta:
            return
        done = set()
        if not self._blockers(meta["uid"]):
            done.add(_FOREGROUND)
        if resource.storage == CRDS.storage and not self._custom_objects(obj):
            done.add(_CRD_CLEANUP)
        meta["finalizers"] = [item for item in meta.get("finalizers", ()) if item not in done]
        if not meta["finalizers"]:
            del meta["finalizers"]
        new = {**obj, "metadata": meta}
        if resource.storage == NAMESPACES.storage and not self._namespaced(name):
            new["spec"] = {}
        if new != obj:
            self._store.commit(resource, obj, new, deleted=self.finished(new))

    def _remove(self, uid: str) -> None:
        if uid in self._places:
            self.delete(*self._places[uid], DeleteOptions(uid=uid))

    def _orphan(self, uid: str) -> None:
        for dependent in list(self._dependents.get(uid, ())):
            resource, namespace, name = self._places[dependent]
            obj = self._store.stored(resource, namespace, name)
            self._store.commit(resource, obj, _without_owner(obj, uid))

    def _blockers(self, uid: str) -> list[str]:
        blocking = []
        for dependent in self._dependents.get(uid, ()):
            obj = self._store.stored(*self._places[dependent])
            references = obj["metadata"].get("ownerReferences", ())
            if any(item["uid"] == uid and item.get("blockOwnerDeletion") for item in references):
                blocking.append(dependent)
        return blocking

    def _namespaced(self, namespace: str) -> list[str]:
        return [uid for uid, (resource, place, _) in self._places.items() if resource.namespaced and place == namespace]

    def _custom_objects(self, crd: Object) -> list[str]:
        storage = (crd["spec"]["group"], crd["spec"]["names"]["plural"])
        return [obj["metadata"]["uid"] for obj in self._store.objects(storage).values()]

    def _success(self, resource: Resource, obj: Object) -> Object:
        about = errors.details(resource, obj["metadata"]["name"], uid=obj["metadata"]["uid"])
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about}


def _owner_uids(obj: Object) -> list[str]:
    return [reference["uid"] for reference in obj["metadata"].get("ownerReferences") or ()]


def _without_owner(obj: Object, uid: str) -> Object:
    references = [item for item in obj["metadata"]["ownerReferences"] if item["uid"] != uid]
    meta = {name: value for name, value in obj["metadata"].items() if name != "ownerReferences"}
    return {**obj, "metadata": {**meta, **({"ownerReferences": references} if references else {})}}
