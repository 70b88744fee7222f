"""What a cluster's own controllers do right after an object was created, as every client of the cluster sees it."""

from __future__ import annotations

from typing import Any

from kaito_testing.kube.objects.history import Event
from kaito_testing.kube.objects.options import WriteOptions
from kaito_testing.kube.objects.verbs import Verbs
from kaito_testing.kube.resources import BY_KIND, CRDS, NAMESPACES

__all__ = ["ControllerManager"]

Object = dict[str, Any]
_MANAGER = WriteOptions("kube-controller-manager")


class ControllerManager:
    """Establishes CRDs, fills new namespaces, annotates nodes. It is a listener of its store."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs, self._store = verbs, verbs.store

    def notice(self, event: Event) -> None:
        """Completes a new object; changes and deletions are left alone."""
        resource, new = event.resource, event.new
        meta = new["metadata"]
        is_there = self._store.objects(resource.storage).get((meta.get("namespace", ""), meta["name"])) is new
        if event.old is not None or not is_there:
            return
        if resource.storage == CRDS.storage:
            self._store.commit(resource, new, _established(new, self._store.now()))
        elif resource.storage == NAMESPACES.storage:
            certificate = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "none: plain HTTP is served"}}
            self._verbs.create(BY_KIND["ConfigMap"], meta["name"], certificate, _MANAGER)
            self._verbs.create(BY_KIND["ServiceAccount"], meta["name"], {"metadata": {"name": "default"}}, _MANAGER)
        elif resource is BY_KIND["Node"]:
            annotations = {"node.alpha.kubernetes.io/ttl": "0", **(meta.get("annotations") or {})}
            self._store.commit(resource, new, {**new, "metadata": {**meta, "annotations": annotations}})


def _established(crd: Object, now: str) -> Object:
    """A CRD with the status that it has once its resources are served."""
    reasons = {"NamesAccepted": "NoConflicts", "Established": "InitialNamesAccepted"}
    conditions = [
        {"type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now}
        for kind, reason in reasons.items()
    ]
    names = crd["spec"]["names"]
    return {**crd, "status": {**crd["status"], "acceptedNames": names, "conditions": conditions}}
