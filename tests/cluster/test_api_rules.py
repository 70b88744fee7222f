"""What the operator relies on, as scenarios that run on the emulated and on a real API server."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kaito_core.api.workspace.crd import workspace_crd
from kaito_testing.cases.workspaces import CASES, Case, workspace_document
from kaito_testing.kube.errors import ApiError
from kaito_testing.world.client import STRATEGIC, KubeClient

Object = dict[str, Any]

pytestmark = pytest.mark.parametrize("cluster", ["emulated", "real"], indirect=True)


def config_map(namespace: str, name: str = "a", **data: str) -> Object:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def deployment(namespace: str, *, replicas: int = 0, image: str = "registry.k8s.io/pause:3.10") -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    meta = {"name": "d", "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def test_applying_the_same_again_is_no_write(cluster: KubeClient, namespace: str) -> None:
    manifest = config_map(namespace, k="1")
    first = cluster.apply(manifest, manager="kaito")
    again = cluster.apply(manifest, manager="kaito")
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_what_the_operator_no_longer_applies_goes(cluster: KubeClient, namespace: str) -> None:
    cluster.apply(config_map(namespace, k="1", old="2"), manager="kaito")
    cluster.patch("configmaps", "a", {"data": {"foreign": "3"}}, namespace)
    assert cluster.apply(config_map(namespace, k="1"), manager="kaito")["data"] == {"k": "1", "foreign": "3"}


def test_a_foreign_value_is_a_conflict_unless_forced(cluster: KubeClient, namespace: str) -> None:
    cluster.apply(config_map(namespace, k="1"), manager="someone")
    with pytest.raises(ApiError) as caught:
        cluster.apply(config_map(namespace, k="2"), manager="kaito", force=False)
    assert (caught.value.code, caught.value.details["causes"][0]["field"]) == (409, ".data.k")  # type: ignore[index]
    assert cluster.apply(config_map(namespace, k="2"), manager="kaito")["data"] == {"k": "2"}


def test_generation_follows_the_pod_template_and_not_the_labels(cluster: KubeClient, namespace: str) -> None:
    before = cluster.apply(deployment(namespace), manager="kaito")["metadata"]["generation"]
    labelled = cluster.patch("deployments", "d", {"metadata": {"labels": {"x": "y"}}}, namespace)
    changed = cluster.apply(deployment(namespace, image="other"), manager="kaito")
    assert (labelled["metadata"]["generation"], changed["metadata"]["generation"]) == (before, before + 1)


def test_an_ephemeral_container_joins_a_pod_and_stays_as_it_is(cluster: KubeClient, namespace: str) -> None:
    container = {"name": "c", "image": "registry.k8s.io/pause:3.10"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace}}
    cluster.create({**pod, "spec": {"containers": [container], "nodeSelector": {"no": "node"}}})

    def join(image: str) -> Object:
        patch = {"spec": {"ephemeralContainers": [{"name": "adapter-1", "image": image}]}}
        return cluster.patch("pods", "p", patch, namespace, content_type=STRATEGIC, subresource="ephemeralcontainers")

    assert [item["name"] for item in join("i")["spec"]["ephemeralContainers"]] == ["adapter-1"]
    with pytest.raises(ApiError, match="may not be changed"):
        join("other")


def test_a_deleted_owner_takes_what_it_owns_along(cluster: KubeClient, namespace: str) -> None:
    if not cluster.has_gc:
        pytest.skip("this server runs without a garbage collector")
    owner = cluster.apply(config_map(namespace, "owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    child = config_map(namespace, "child")
    child["metadata"]["ownerReferences"] = [reference]
    cluster.apply(child)
    cluster.delete("configmaps", "owner", namespace)
    cluster.wait("the child to go", lambda: cluster.get("configmaps", "child", namespace) is None, 60)


def test_a_deployment_gets_a_ready_pod(cluster: KubeClient, namespace: str) -> None:
    if not cluster.has_workloads:
        pytest.skip("this server runs no pods")
    if not cluster.list("nodes"):
        cluster.add_node("n")  # the emulated cluster alone starts without nodes
    cluster.apply(deployment(namespace, replicas=1), manager="kaito")

    def ready() -> bool:
        found = cluster.get("deployments", "d", namespace) or {}
        return bool(found.get("status", {}).get("readyReplicas") == 1)

    cluster.wait("a ready replica", ready, 120)


def loose_crd() -> Object:
    """The CRD as of a time without rules, under which anything could be stored."""
    crd = copy.deepcopy(workspace_crd())
    for version in crd["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return crd


def verdict(cluster: KubeClient, namespace: str, case: Case, name: str) -> str:
    """What the server says to a row, "" where it accepts it; nothing is stored."""
    said = "" if case.only_python else _said(cluster, namespace, case, name, "Strict")
    # A field that the schema does not have is named before the rules are asked.
    hidden = case.only_python or (said.startswith("400 ") and "strict decoding error" in said)
    return _said(cluster, namespace, case, name, "Ignore") if hidden else said


def _said(cluster: KubeClient, namespace: str, case: Case, name: str, validation: str) -> str:
    new = copy.deepcopy(case.new)
    path = f"/apis/{new['apiVersion']}/namespaces/{namespace}/workspaces"
    query = {"dryRun": "All", "fieldValidation": validation}
    try:
        if case.old is None:
            cluster.request("POST", path, {**new, "metadata": {**new["metadata"], "namespace": namespace}}, query=query)
        else:
            stored = cluster.get("workspaces", name, namespace) or {}
            kept = {key: stored["metadata"][key] for key in ("resourceVersion", "uid")}
            new["metadata"] |= {**kept, "name": name, "namespace": namespace}
            cluster.request("PUT", f"{path}/{name}", new, query=query)
    except ApiError as error:
        return f"{error.code} {error}"
    return ""


def refuses_names(cluster: KubeClient, namespace: str) -> bool:
    """Whether the server goes by the rules already; a CRD takes a moment to be taken in."""
    return bool(verdict(cluster, namespace, Case("", "", workspace_document(metadata__name="7b")), ""))


def test_each_row_of_the_table_gets_its_verdict(cluster: KubeClient, namespace: str) -> None:
    cluster.apply(loose_crd())
    names = {case.id: f"row-{index}" for index, case in enumerate(CASES) if case.old is not None}
    cluster.wait("the Workspace's type", lambda: cluster.list("customresourcedefinitions"))
    for case in CASES:
        if case.old is not None:
            metadata = {"name": names[case.id], "namespace": namespace}
            document = {**case.old, "metadata": metadata}
            cluster.wait("a place to store", lambda document=document: stores(cluster, document))
            if status := case.old.get("status"):
                cluster.patch("workspaces", names[case.id], {"status": status}, namespace, subresource="status")
    cluster.apply(workspace_crd())
    cluster.wait("the rules", lambda: refuses_names(cluster, namespace))
    wrong = {}
    for case in CASES:
        found = verdict(cluster, namespace, case, names.get(case.id, ""))
        refused = () if case.only_python else case.refused
        if bool(found) != bool(refused) or (found and not found.startswith("422 ")):
            wrong[case.id] = found or "accepted"
    assert wrong == {}


def stores(cluster: KubeClient, document: Object) -> bool:
    """Whether an object could be created; a type that has just come is not served at once."""
    try:
        cluster.create(document)
    except ApiError as error:
        if error.code == 404:
            return False
        raise
    return True
