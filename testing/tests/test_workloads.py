"""Simulated workloads: pods of Deployments and StatefulSets, where they land, how they fail, what status says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kaito_core.reconcile.objects.placement import named_nodes, node_affinity
from kaito_testing.world.cluster import FakeCluster, PodFailure
from kaito_testing.world.pods import node_for

Object = dict[str, Any]

GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}


def workload(kind: str = "Deployment", replicas: int = 1, image: str = "x", **pod: Any) -> Object:
    main = {"name": "main", "image": image, **GPU}
    template = {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [main], **pod}}
    spec: Object = {"replicas": replicas, "selector": {"matchLabels": {"app": "w"}}, "template": template}
    spec |= {"serviceName": "w"} if kind == "StatefulSet" else {}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "w"}, "spec": spec}


@pytest.fixture
def cluster(kaito_cluster: FakeCluster) -> Iterator[FakeCluster]:
    kaito_cluster.add_node("gpu-1", {"pool": "gpu"}, gpus=2)
    kaito_cluster.run_workloads()
    yield kaito_cluster


def pods(cluster: FakeCluster) -> list[Object]:
    return cluster.list("pods", "default", "app=w")


def ready(cluster: FakeCluster, kind: str, replicas: int) -> Object:
    def found() -> Object | None:
        obj = cluster.get(kind, "w")
        done = obj is not None and obj.get("status", {}).get("readyReplicas", 0) == replicas
        return obj if done and obj["status"].get("observedGeneration") == obj["metadata"]["generation"] else None  # type: ignore[index]

    result: Object = cluster.wait(f"{replicas} ready replicas", found)
    return result


def waiting(cluster: FakeCluster, reason: str) -> Object:
    """The pod, once its first container waits for this reason."""

    def found() -> Object | None:
        for pod in pods(cluster):
            for status in pod.get("status", {}).get("containerStatuses") or ():
                if status["state"].get("waiting", {}).get("reason") == reason:
                    return pod
        return None

    result: Object = cluster.wait(reason, found)
    return result


def test_a_deployment_gets_ready_pods_on_nodes_and_says_so(cluster: FakeCluster) -> None:
    cluster.apply(workload(replicas=2))
    deployment = ready(cluster, "deployments", 2)
    conditions = {item["type"]: item["status"] for item in deployment["status"]["conditions"]}
    assert conditions == {"Available": "True", "Progressing": "True"}
    assert [pod["spec"]["nodeName"] for pod in pods(cluster)] == ["gpu-1", "gpu-1"]


def test_a_changed_template_replaces_pods_and_a_changed_label_does_not(cluster: FakeCluster) -> None:
    cluster.apply(workload())
    ready(cluster, "deployments", 1)
    (before,) = pods(cluster)
    cluster.patch("deployments", "w", {"metadata": {"labels": {"x": "y"}}})
    assert [pod["metadata"]["uid"] for pod in pods(cluster)] == [before["metadata"]["uid"]]
    cluster.apply(workload(image="y"))

    def replaced() -> bool:
        return [pod["spec"]["containers"][0]["image"] for pod in pods(cluster)] == ["y"]

    cluster.wait("the new pod", replaced)
    ready(cluster, "deployments", 1)


def test_a_deleted_deployment_takes_its_pods_along(cluster: FakeCluster) -> None:
    cluster.apply(workload())
    ready(cluster, "deployments", 1)
    cluster.delete("deployments", "w")
    cluster.wait("no pods", lambda: not pods(cluster))


def test_a_statefulset_names_its_pods_and_keeps_their_order(cluster: FakeCluster) -> None:
    cluster.apply(workload("StatefulSet", replicas=2))
    ready(cluster, "statefulsets", 2)
    assert [pod["metadata"]["name"] for pod in pods(cluster)] == ["w-0", "w-1"]
    cluster.run_workloads(PodFailure("CrashLoopBackOff", {"statefulset.kubernetes.io/pod-name": "w-0"}))
    cluster.request("DELETE", "/api/v1/namespaces/default/pods/w-1")
    cluster.wait(
        "w-0 to fail and w-1 to wait for it", lambda: [p["metadata"]["name"] for p in pods(cluster)] == ["w-0"]
    )


def test_a_changed_statefulset_replaces_its_pods_and_a_smaller_one_drops_the_last(cluster: FakeCluster) -> None:
    cluster.apply(workload("StatefulSet", replicas=2))
    ready(cluster, "statefulsets", 2)
    cluster.apply(workload("StatefulSet", replicas=1, image="y"))

    def images() -> list[tuple[str, str]]:
        return [(pod["metadata"]["name"], pod["spec"]["containers"][0]["image"]) for pod in pods(cluster)]

    cluster.wait("one new pod", lambda: images() == [("w-0", "y")])
    ready(cluster, "statefulsets", 1)


def test_pods_that_do_not_fit_say_why_and_start_once_a_node_comes(cluster: FakeCluster) -> None:
    cluster.apply(workload(replicas=3))
    ready(cluster, "deployments", 2)

    def unschedulable() -> str:
        for pod in pods(cluster):
            for condition in pod.get("status", {}).get("conditions") or ():
                if condition.get("reason") == "Unschedulable":
                    return str(condition["message"])
        return ""

    assert cluster.wait("the message", unschedulable) == "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    cluster.add_node("gpu-2")
    ready(cluster, "deployments", 3)


@pytest.mark.parametrize(
    ("reason", "shown", "phase", "last"),
    [
        ("ImagePullBackOff", "ImagePullBackOff", "Pending", ""),
        ("CrashLoopBackOff", "CrashLoopBackOff", "Running", "Error"),
        ("OOMKilled", "CrashLoopBackOff", "Running", "OOMKilled"),
    ],
)
def test_failures_look_as_the_kubelet_shows_them_and_heal(
    cluster: FakeCluster, reason: str, shown: str, phase: str, last: str
) -> None:
    cluster.run_workloads(PodFailure(reason, {"app": "w"}))
    cluster.apply(workload())
    pod = waiting(cluster, shown)
    (status,) = pod["status"]["containerStatuses"]
    assert pod["status"]["phase"] == phase
    assert status["lastState"].get("terminated", {}).get("reason", "") == last
    cluster.run_workloads()
    ready(cluster, "deployments", 1)


def test_a_failing_init_container_holds_the_others(cluster: FakeCluster) -> None:
    cluster.run_workloads(PodFailure("CrashLoopBackOff", container="fetch"))
    cluster.apply(workload(initContainers=[{"name": "fetch", "image": "i"}]))
    pod = waiting(cluster, "PodInitializing")
    (init,) = pod["status"]["initContainerStatuses"]
    assert init["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert {item["type"]: item["status"] for item in pod["status"]["conditions"]}["Initialized"] == "False"


def test_a_lost_node_loses_its_pods_and_an_unready_one_their_readiness(cluster: FakeCluster) -> None:
    cluster.apply(workload())
    ready(cluster, "deployments", 1)
    cluster.add_node("gpu-1", {"pool": "gpu"}, gpus=2, ready=False)
    ready(cluster, "deployments", 0)
    cluster.add_node("gpu-2")
    cluster.delete("nodes", "gpu-1", "")
    ready(cluster, "deployments", 1)
    assert [pod["spec"]["nodeName"] for pod in pods(cluster)] == ["gpu-2"]


def node(gpus: str = "1", ready: str = "True", taints: list[Object] | None = None, **labels: str) -> Object:
    conditions = [{"type": "Ready", "status": ready}]
    return {
        "metadata": {"name": "n", "labels": labels},
        "spec": {"taints": taints or []},
        "status": {"allocatable": {"nvidia.com/gpu": gpus}, "conditions": conditions},
    }


TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a", "b"]}]}]
        }
    }
}


#: A term that asks for nothing is satisfied by no node.
def numbered(operator: str, bound: str) -> Object:
    return {"matchExpressions": [{"key": "size", "operator": operator, "values": [bound]}]}


EMPTY_TERM: Object = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}}


@pytest.mark.parametrize(
    ("spec", "candidate", "fits"),
    [
        ({}, node(), True),
        ({}, node(gpus="0"), False),
        ({}, node(ready="False"), False),
        ({}, node(taints=[TAINT]), False),
        ({"tolerations": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]}, node(taints=[TAINT]), True),
        ({"tolerations": [{"key": "sku", "operator": "Exists"}]}, node(taints=[TAINT]), True),
        ({"tolerations": [{"key": "sku", "value": "cpu"}]}, node(taints=[TAINT]), False),
        ({"nodeSelector": {"pool": "a"}}, node(pool="a"), True),
        ({"nodeSelector": {"pool": "a"}}, node(), False),
        ({"affinity": AFFINITY}, node(pool="b"), True),
        ({"affinity": AFFINITY}, node(pool="c"), False),
        ({"affinity": node_affinity(named_nodes(["other", "n"]))}, node(), True),
        ({"affinity": node_affinity(named_nodes(["other"]))}, node(), False),
        ({"affinity": node_affinity(named_nodes(["n"]), affinity=AFFINITY)}, node(pool="b"), True),
        ({"affinity": node_affinity(named_nodes(["n"]), affinity=AFFINITY)}, node(pool="c"), False),
        ({"affinity": node_affinity(named_nodes(["other"]), affinity=AFFINITY)}, node(pool="b"), False),
        ({"affinity": EMPTY_TERM}, node(), False),
        ({"affinity": node_affinity([numbered("Gt", "79")])}, node(size="80"), True),
        ({"affinity": node_affinity([numbered("Gt", "80")])}, node(size="80"), False),
        ({"affinity": node_affinity([numbered("Lt", "81")])}, node(size="80"), True),
        ({"affinity": node_affinity([numbered("Lt", "80")])}, node(size="80"), False),
        ({"affinity": node_affinity([numbered("Lt", "80")])}, node(), False),
        ({"affinity": node_affinity([numbered("Lt", "80")])}, node(size="small"), False),
    ],
)
def test_where_a_pod_fits(spec: Object, candidate: Object, fits: bool) -> None:
    pod = {"spec": {"containers": [{"name": "c", **GPU}], **spec}}
    assert (node_for(pod, [candidate], [])[0] == "n") is fits
