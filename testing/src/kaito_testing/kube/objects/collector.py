"""What follows from a deletion: dependents of owners, contents of namespaces, objects of CRDs.

A real cluster's controllers do this some time later; here it is done before the request that causes it is answered.
"""

from __future__ import annotations

from typing import Any

from kaito_testing.kube.objects import deletion
from kaito_testing.kube.objects.history import Event
from kaito_testing.kube.objects.options import DeleteOptions
from kaito_testing.kube.objects.owners import Found, Owners, owner_uids
from kaito_testing.kube.objects.verbs import Verbs
from kaito_testing.kube.resources import CRDS, NAMESPACES, Resource

__all__ = ["Collector"]

Object = dict[str, Any]


class Collector:
    """The garbage collector and the namespace controller of a cluster. It is a listener of its store."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs, self._store = verbs, verbs.store
        self._owners = Owners(self._store)

    def notice(self, event: Event) -> None:
        """Does what a change makes necessary."""
        self._owners.notice(event)
        uid, owners = event.new["metadata"]["uid"], owner_uids(event.new)
        if event.deleted:
            self._release(uid)
            for waiting in self._waiting_for(event.new):
                self._finish(waiting)
        elif owners and not any(map(self._owners.exists, owners)):
            self._remove(self._owners.find(uid))
        elif "deletionTimestamp" in event.new["metadata"]:
            self._empty(event.resource, event.new)
            self._finish(uid)

    def _release(self, uid: str) -> None:
        """Deletes the dependents of an object that is gone, or their reference to it if another owner exists."""
        for resource, dependent in self._owners.dependents(uid):
            if any(map(self._owners.exists, owner_uids(dependent))):
                self._store.commit(resource, dependent, _without_owner(dependent, uid))
            else:
                self._remove((resource, dependent))

    def _waiting_for(self, gone: Object) -> list[str]:
        """The uids of what may have waited for an object to go: its owners, its namespace, and CRDs."""
        space = self._store.objects(NAMESPACES.storage).get(("", gone["metadata"].get("namespace", "")))
        crds = self._store.objects(CRDS.storage).values()
        return [*owner_uids(gone), *(obj["metadata"]["uid"] for obj in ([space] if space else []) + list(crds))]

    def _empty(self, resource: Resource, obj: Object) -> None:
        """Does to other objects what has to be done before an object that is being deleted may go."""
        meta = obj["metadata"]
        finalizers = meta.get("finalizers", ())
        if deletion.ORPHAN in finalizers:
            for kind, dependent in self._owners.dependents(meta["uid"]):
                self._store.commit(kind, dependent, _without_owner(dependent, meta["uid"]))
        elif deletion.FOREGROUND in finalizers:
            for found in self._owners.dependents(meta["uid"]):
                self._remove(found)
        if resource.storage == NAMESPACES.storage:
            for found in self._owners.in_namespace(meta["name"]):
                self._remove(found)
        if deletion.CRD_CLEANUP in finalizers:
            for uid in deletion.instances(obj, self._store):
                self._remove(self._owners.find(uid))

    def _finish(self, uid: str) -> None:
        """Takes the finalizers whose work is done off an object that is being deleted."""
        found = self._owners.find(uid)
        if found is None or "deletionTimestamp" not in found[1]["metadata"]:
            return
        resource, obj = found
        done = {deletion.ORPHAN}
        if not self._is_blocked(uid):
            done.add(deletion.FOREGROUND)
        if resource.storage == CRDS.storage and not deletion.instances(obj, self._store):
            done.add(deletion.CRD_CLEANUP)
        meta = dict(obj["metadata"])
        meta["finalizers"] = [name for name in meta.get("finalizers", ()) if name not in done]
        if not meta["finalizers"]:
            del meta["finalizers"]
        new = {**obj, "metadata": meta}
        if resource.storage == NAMESPACES.storage and not any(self._owners.in_namespace(meta["name"])):
            new["spec"] = {}
        if new != obj:
            self._store.commit(resource, obj, new, deleted=deletion.is_finished(new))

    def _is_blocked(self, uid: str) -> bool:
        """Whether a dependent exists that its owner has to outlive."""
        return any(
            reference["uid"] == uid and reference.get("blockOwnerDeletion")
            for _, dependent in self._owners.dependents(uid)
            for reference in dependent["metadata"]["ownerReferences"]
        )

    def _remove(self, found: Found | None) -> None:
        """Deletes an object unless it is gone."""
        if found is not None:
            resource, obj = found
            meta = obj["metadata"]
            if self._owners.find(meta["uid"]) is not None:
                options = DeleteOptions(uid=meta["uid"])
                self._verbs.delete(resource, meta.get("namespace", ""), meta["name"], options)


def _without_owner(obj: Object, uid: str) -> Object:
    references = [item for item in obj["metadata"]["ownerReferences"] if item["uid"] != uid]
    meta = {name: value for name, value in obj["metadata"].items() if name != "ownerReferences"}
    return {**obj, "metadata": {**meta, **({"ownerReferences": references} if references else {})}}
