"""What a cluster's own controllers do right after an object was created: small, and visible to every client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kaito_testing.kube.objects.options import WriteOptions
from kaito_testing.kube.objects.resources import BY_KIND, CRDS, NAMESPACES, Resource

if TYPE_CHECKING:
    from kaito_testing.kube.objects.store import Store

__all__ = ["after_create"]

Object = dict[str, Any]


def after_create(store: Store, resource: Resource, stored: Object) -> None:
    """Establishes a CRD, furnishes a namespace, annotates a node; other kinds are left alone."""
    meta = stored["metadata"]
    if resource.storage == CRDS.storage:
        store.commit(resource, stored, _established(stored, store.now()))
    elif resource.storage == NAMESPACES.storage:
        options = WriteOptions("kube-controller-manager")
        certificate = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "none: plain HTTP is served"}}
        store.create(BY_KIND["ConfigMap"], meta["name"], certificate, options)
        store.create(BY_KIND["ServiceAccount"], meta["name"], {"metadata": {"name": "default"}}, options)
    elif resource is BY_KIND["Node"]:
        annotations = {"node.alpha.kubernetes.io/ttl": "0", **(meta.get("annotations") or {})}
        store.commit(resource, stored, {**stored, "metadata": {**meta, "annotations": annotations}})


def _established(crd: Object, now: str) -> Object:
    """A CRD with the status that it has once its resources are served."""
    reasons = {"NamesAccepted": "NoConflicts", "Established": "InitialNamesAccepted"}
    conditions = [
        {"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now}
        for kind, reason in reasons.items()
    ]
    names = crd["spec"]["names"]
    return {**crd, "status": {**crd["status"], "acceptedNames": names, "conditions": conditions}}
