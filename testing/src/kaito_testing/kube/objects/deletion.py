"""What a delete request does to the object itself: marks, finalizers, grace. What follows from it is in `collector`."""

from __future__ import annotations

from typing import Any

from kaito_testing.kube import errors
from kaito_testing.kube.objects.options import DeleteOptions
from kaito_testing.kube.objects.store import Store
from kaito_testing.kube.resources import CRDS, NAMESPACES, Resource

__all__ = [
    "CRD_CLEANUP",
    "FOREGROUND",
    "ORPHAN",
    "check_preconditions",
    "instances",
    "is_finished",
    "mark",
    "success",
]

Object = dict[str, Any]

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
CRD_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_FINALIZERS = {"Foreground": FOREGROUND, "Orphan": ORPHAN}


def check_preconditions(resource: Resource, obj: Object, options: DeleteOptions) -> None:
    """Raises `ApiError` (409) if the request names another uid or resourceVersion than the object's."""
    meta, name = obj["metadata"], obj["metadata"]["name"]
    if options.uid not in ("", meta["uid"]):
        raise errors.precondition(resource, name, "UID", options.uid, meta["uid"])
    if options.resource_version not in ("", meta["resourceVersion"]):
        version = meta["resourceVersion"]
        raise errors.precondition(resource, name, "ResourceVersion", options.resource_version, version)


def mark(resource: Resource, obj: Object, options: DeleteOptions, store: Store) -> Object:
    """The object with what a delete request adds: a time, a grace period, finalizers. Itself if that changes nothing.

    Args:
        resource: Its type.
        obj: The stored object.
        options: The request's.
        store: Where the objects of a CRD are looked for.
    """
    meta = dict(obj["metadata"])
    wanted = [_FINALIZERS[options.propagation]] if options.propagation in _FINALIZERS else []
    wanted += [CRD_CLEANUP] if resource.storage == CRDS.storage and instances(obj, store) else []
    extra = [name for name in wanted if name not in meta.get("finalizers", ())]
    grace = _grace_seconds(resource, obj, options)
    if "deletionTimestamp" in meta and not extra and grace >= meta.get("deletionGracePeriodSeconds", 0):
        return obj
    if "deletionTimestamp" not in meta and resource.generation:
        meta["generation"] += 1
    meta.setdefault("deletionTimestamp", store.now())
    if resource.storage != NAMESPACES.storage:
        meta["deletionGracePeriodSeconds"] = grace
    if extra:
        meta["finalizers"] = [*meta.get("finalizers", ()), *extra]
    marked = {**obj, "metadata": meta}
    if resource.storage == NAMESPACES.storage:
        marked["status"] = {"phase": "Terminating"}
    return marked


def _grace_seconds(resource: Resource, obj: Object, options: DeleteOptions) -> int:
    """How long the object may take to shut down: only a pod on a node has something to shut down."""
    if resource.storage != ("", "pods") or not obj["spec"].get("nodeName"):
        return 0
    if options.grace_seconds is not None:
        return options.grace_seconds
    return int(obj["spec"].get("terminationGracePeriodSeconds", 30))


def is_finished(obj: Object) -> bool:
    """Whether an object is being deleted and has nothing left to wait for."""
    meta = obj["metadata"]
    if "deletionTimestamp" not in meta or meta.get("finalizers"):
        return False
    if obj["kind"] == "Namespace":
        return not obj["spec"].get("finalizers")
    return not meta.get("deletionGracePeriodSeconds")


def instances(crd: Object, store: Store) -> list[str]:
    """The uids of the objects of a CRD's type."""
    storage = (crd["spec"]["group"], crd["spec"]["names"]["plural"])
    return [obj["metadata"]["uid"] for obj in store.objects(storage).values()]


def success(resource: Resource, obj: Object) -> Object:
    """The Status that answers a delete."""
    about = errors.details(resource, obj["metadata"]["name"], uid=obj["metadata"]["uid"])
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about}
