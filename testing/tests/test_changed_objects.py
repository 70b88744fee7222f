"""What simulated controllers look at after a change: the object, its owners and waiting pods; nothing else."""

from __future__ import annotations

from typing import Any

from kaito_testing.kube.objects.cluster import new_cluster
from kaito_testing.kube.objects.options import DeleteOptions, WriteOptions
from kaito_testing.kube.objects.verbs import Verbs
from kaito_testing.kube.resources import BUILTIN
from kaito_testing.world.changed_objects import ChangedObjects

Object = dict[str, Any]

BY_KIND = {resource.kind: resource for resource in BUILTIN}
TESTER = WriteOptions("test")


def create(verbs: Verbs, kind: str, name: str, spec: Object, owner: Object | None = None) -> Object:
    meta: Object = {"name": name}
    if owner is not None:
        reference = {key: owner[key] for key in ("apiVersion", "kind")}
        meta["ownerReferences"] = [
            {**reference, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True}
        ]
    resource = BY_KIND[kind]
    return verbs.create(resource, "default" if resource.namespaced else "", {"metadata": meta, "spec": spec}, TESTER)


def pod(verbs: Verbs, name: str, node: str = "", owner: Object | None = None) -> Object:
    spec = {"containers": [{"name": "main", "image": "x"}], **({"nodeName": node} if node else {})}
    return create(verbs, "Pod", name, spec, owner)


def replicaset(verbs: Verbs, name: str) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    return create(verbs, "ReplicaSet", name, {"selector": {"matchLabels": {"app": name}}, "template": template})


def changed_objects(verbs: Verbs) -> ChangedObjects:
    made = ChangedObjects(verbs.store)
    verbs.store.listeners.append(made.notice)
    return made


def taken(changed: ChangedObjects) -> list[tuple[str, str]]:
    return [(resource.kind, name) for resource, (_, name) in changed.take()]


def test_a_pod_concerns_its_owner_and_nothing_else() -> None:
    verbs = new_cluster()
    first, _ = replicaset(verbs, "a"), replicaset(verbs, "b")
    pod(verbs, "other", node="n1")
    changed = changed_objects(verbs)
    assert taken(changed) == [("ReplicaSet", "a"), ("ReplicaSet", "b"), ("Pod", "other")]
    assert taken(changed) == []
    pod(verbs, "mine", node="n1", owner=first)
    assert taken(changed) == [("ReplicaSet", "a"), ("Pod", "mine")]


def test_a_node_and_a_deleted_pod_concern_the_pods_that_wait() -> None:
    verbs = new_cluster()
    pod(verbs, "waiting")
    pod(verbs, "here", node="n1")
    pod(verbs, "there", node="n2")
    changed = changed_objects(verbs)
    changed.take()
    create(verbs, "Node", "n1", {})
    assert taken(changed) == [("Pod", "here"), ("Pod", "waiting")]
    verbs.delete(BY_KIND["Pod"], "default", "there", DeleteOptions(grace_seconds=0))
    assert taken(changed) == [("Pod", "there"), ("Pod", "waiting")]


def test_a_forgotten_history_hides_no_change() -> None:
    verbs = new_cluster()
    pod(verbs, "a", node="n1")
    changed = changed_objects(verbs)
    changed.take()
    pod(verbs, "b", node="n1")
    verbs.store.revision += 1
    verbs.store.history.compact(verbs.store.revision)
    assert taken(changed) == [("Pod", "b")]
