"""MemoryCluster keeps the promises of the Cluster protocol that providers rely on."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from kaito_core.api import NODES, Cluster, KubeObject, ResourceType
from kaito_core.errors import ClusterError
from kaito_testing.world.memory_cluster import MemoryCluster

PODS = ResourceType("", "v1", "pods", "Pod")


def pod(name: str, namespace: str = "a", **labels: str) -> KubeObject:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels}}


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


def names(cluster: Cluster, *where: Any, **labels: Any) -> list[str]:
    return [found["metadata"]["name"] for found in run(cluster.list(*where, **labels))]


def test_objects_are_found_by_type_name_and_namespace() -> None:
    cluster = MemoryCluster([pod("x"), pod("x", "b")])
    assert run(cluster.get(PODS, "x", "b"))["metadata"]["namespace"] == "b"
    assert run(cluster.get(PODS, "x")) is None
    assert run(cluster.get(NODES, "x")) is None
    assert names(cluster, PODS) == ["x", "x"]
    assert names(cluster, PODS, "b") == ["x"]
    assert names(cluster, NODES) == []


def test_lists_by_labels() -> None:
    cluster = MemoryCluster([pod("x", app="1"), pod("y", app="1", tier="2"), pod("z")])
    assert names(cluster, PODS, labels={"app": "1"}) == ["x", "y"]
    assert names(cluster, PODS, labels={"app": "1", "tier": "2"}) == ["y"]


def test_what_is_returned_is_a_copy() -> None:
    cluster = MemoryCluster([pod("x")])
    run(cluster.get(PODS, "x", "a"))["metadata"]["name"] = "changed"
    run(cluster.list(PODS))[0]["metadata"]["name"] = "changed"
    assert names(cluster, PODS) == ["x"]


def test_apply_keeps_identity_and_status() -> None:
    cluster = MemoryCluster()
    uid = run(cluster.apply(pod("x")))["metadata"]["uid"]
    cluster.patch_status(PODS, "x", {"phase": "Running"}, "a")
    again = run(cluster.apply(pod("x", app="1")))
    assert (again["metadata"]["uid"], again["status"]) == (uid, {"phase": "Running"})
    assert cluster.calls == [("apply", "Pod", "x"), ("apply", "Pod", "x")]


def test_delete_looks_at_the_uid() -> None:
    cluster = MemoryCluster([pod("x")])
    with pytest.raises(ClusterError) as caught:
        run(cluster.delete(PODS, "x", "a", uid="other"))
    assert caught.value.status == 409
    assert run(cluster.delete(PODS, "x", "a", uid="uid-1")) is True
    assert run(cluster.delete(PODS, "x", "a")) is False
    assert cluster.calls == [("delete", "Pod", "x")]


def test_finalizers_delay_deletion() -> None:
    held = pod("x")
    held["metadata"]["finalizers"] = ["f"]
    cluster = MemoryCluster([held])
    assert run(cluster.delete(PODS, "x", "a")) is True
    assert "deletionTimestamp" in run(cluster.get(PODS, "x", "a"))["metadata"]
    cluster.finish_deletions()
    assert run(cluster.get(PODS, "x", "a")) is None


def test_absent_types_are_empty_but_refuse_writes() -> None:
    cluster = MemoryCluster(absent=[PODS])
    assert names(cluster, PODS) == []
    assert run(cluster.delete(PODS, "x", "a")) is False
    with pytest.raises(ClusterError) as caught:
        run(cluster.apply(pod("x")))
    assert caught.value.status == 404
