"""The scale subresource: of workloads, and of custom resources whose CRD names the paths."""

import pytest

from kaito_testing.kube.errors import ApiError
from kaito_testing.world.cluster import FakeCluster

HEAD = {"apiVersion": "example.com/v1", "kind": "Pool", "metadata": {"name": "p", "namespace": "default"}}
PATH = "/apis/example.com/v1/namespaces/default/pools/p/scale"
SCALE = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "p", "namespace": "default"}}


def pools() -> dict[str, object]:
    count = {"type": "integer", "minimum": 0, "maximum": 5}
    properties = {
        "spec": {"type": "object", "properties": {"size": count, "colour": {"type": "string"}}},
        "status": {"type": "object", "properties": {"size": count, "labels": {"type": "string"}}},
    }
    scale = {
        "specReplicasPath": ".spec.size",
        "statusReplicasPath": ".status.size",
        "labelSelectorPath": ".status.labels",
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
        "subresources": {"status": {}, "scale": scale},
    }
    names = {"kind": "Pool", "plural": "pools", "singular": "pool"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "pools.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }


@pytest.fixture
def pool(kaito_cluster: FakeCluster) -> FakeCluster:
    kaito_cluster.apply(pools())
    kaito_cluster.apply({**HEAD, "spec": {"colour": "red"}})
    return kaito_cluster


def refusal(cluster: FakeCluster, verb: str, body: object = None) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        cluster.request(verb, PATH, body)
    return caught.value.code, caught.value.message


def test_a_resource_that_does_not_say_its_size_has_no_scale_to_read(pool: FakeCluster) -> None:
    code, words = refusal(pool, "GET")
    assert (code, words) == (500, 'Internal error occurred: the spec replicas field ".spec.size" does not exist')
    code, words = refusal(pool, "PUT", SCALE)
    assert (code, words) == (400, 'the spec replicas field ".spec.size" cannot be empty')


def test_a_patch_sets_it_and_nothing_else(pool: FakeCluster) -> None:
    scale = pool.patch("pools.example.com", "p", {"spec": {"replicas": 3}}, subresource="scale")
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert (scale["spec"], scale["status"]) == ({"replicas": 3}, {"replicas": 0})
    stored = pool.get("pools.example.com", "p")
    assert stored is not None and stored["spec"] == {"colour": "red", "size": 3}
    assert stored["metadata"]["generation"] == 2
    writers = [entry for entry in stored["metadata"]["managedFields"] if entry.get("subresource") == "scale"]
    assert [entry["fieldsV1"] for entry in writers] == [{"f:spec": {"f:size": {}}}]
    status = {"status": {"size": 2, "labels": "a=b"}}
    pool.patch("pools.example.com", "p", status, subresource="status")
    assert pool.request("GET", PATH)["status"] == {"replicas": 2, "selector": "a=b"}


def test_a_put_with_an_old_version_is_a_conflict(pool: FakeCluster) -> None:
    pool.patch("pools.example.com", "p", {"spec": {"replicas": 3}}, subresource="scale")
    scale = pool.request("GET", PATH)
    changed = pool.request("PUT", PATH, {**scale, "spec": {"replicas": 0}})
    assert changed["spec"] == {}
    assert refusal(pool, "PUT", {**scale, "spec": {"replicas": 1}})[0] == 409
    assert pool.request("PUT", PATH, {**SCALE, "spec": {"replicas": 1}})["spec"] == {"replicas": 1}


@pytest.mark.parametrize(("replicas", "code"), [(-1, 422), (6, 422), ("2", 400)])
def test_a_size_that_cannot_be(pool: FakeCluster, replicas: object, code: int) -> None:
    assert refusal(pool, "PUT", {**SCALE, "spec": {"replicas": replicas}})[0] == code


def test_who_scales_a_workload_is_named(kaito_cluster: FakeCluster) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    kaito_cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
    kaito_cluster.patch("deployments", "d", {"spec": {"replicas": 2}}, subresource="scale")
    stored = kaito_cluster.get("deployments", "d")
    assert stored is not None
    owners = {
        (entry["operation"], entry.get("subresource", "")): "f:replicas" in entry["fieldsV1"]["f:spec"]
        for entry in stored["metadata"]["managedFields"]
    }
    assert owners == {("Apply", ""): False, ("Update", "scale"): True}
