"""What simulated controllers look at after a change: the object, its owners, pods that wait; not the rest."""

from __future__ import annotations

from typing import Any

from kaito_testing.kube.objects.options import DeleteOptions, WriteOptions
from kaito_testing.kube.objects.resources import BUILTIN
from kaito_testing.kube.objects.store import Store
from kaito_testing.world.changed_objects import Concerned

Object = dict[str, Any]

BY_KIND = {resource.kind: resource for resource in BUILTIN}
TESTER = WriteOptions("test")


def create(store: Store, kind: str, name: str, spec: Object, owner: Object | None = None) -> Object:
    meta: Object = {"name": name}
    if owner is not None:
        reference = {key: owner[key] for key in ("apiVersion", "kind")}
        meta["ownerReferences"] = [
            {**reference, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True}
        ]
    resource = BY_KIND[kind]
    return store.create(resource, "default" if resource.namespaced else "", {"metadata": meta, "spec": spec}, TESTER)


def pod(store: Store, name: str, node: str = "", owner: Object | None = None) -> Object:
    spec = {"containers": [{"name": "main", "image": "x"}], **({"nodeName": node} if node else {})}
    return create(store, "Pod", name, spec, owner)


def replicaset(store: Store, name: str) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    return create(store, "ReplicaSet", name, {"selector": {"matchLabels": {"app": name}}, "template": template})


def taken(concerned: Concerned) -> list[tuple[str, str]]:
    return [(resource.kind, name) for resource, (_, name) in concerned.take()]


def test_a_pod_concerns_its_owner_and_nobody_else() -> None:
    store = Store()
    first, _ = replicaset(store, "a"), replicaset(store, "b")
    pod(store, "other", node="n1")
    concerned = Concerned(store)
    assert taken(concerned) == [("ReplicaSet", "a"), ("ReplicaSet", "b"), ("Pod", "other")]
    assert taken(concerned) == []
    pod(store, "mine", node="n1", owner=first)
    assert taken(concerned) == [("ReplicaSet", "a"), ("Pod", "mine")]


def test_what_frees_room_concerns_the_pods_that_wait_and_a_node_those_on_it() -> None:
    store = Store()
    pod(store, "waiting")
    pod(store, "here", node="n1")
    pod(store, "there", node="n2")
    concerned = Concerned(store)
    concerned.take()
    create(store, "Node", "n1", {})
    assert taken(concerned) == [("Pod", "here"), ("Pod", "waiting")]
    store.collector.delete(BY_KIND["Pod"], "default", "there", DeleteOptions(grace_seconds=0))
    assert taken(concerned) == [("Pod", "there"), ("Pod", "waiting")]


def test_once_the_history_is_forgotten_all_is_concerned() -> None:
    store = Store()
    pod(store, "a", node="n1")
    concerned = Concerned(store)
    concerned.take()
    pod(store, "b", node="n1")
    store.revision += 1
    store.history.compact(store.revision)
    assert taken(concerned) == [("Pod", "a"), ("Pod", "b")]
