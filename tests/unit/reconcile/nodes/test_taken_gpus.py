"""The GPUs that other Workspaces hold, in whatever order things happened."""

from typing import Any

import pytest

from kaito_core.api import KubeObject
from kaito_core.reconcile.nodes.taken_gpus import pinned_nodes, pod_gpus, taken_gpus
from kaito_core.reconcile.objects.podspec import node_affinity

OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def spec(gpus: int, *nodes: str, resource: str = "nvidia.com/gpu") -> KubeObject:
    container = {"name": "runtime", "resources": {"limits": {resource: str(gpus)} if gpus else {}}}
    return {"containers": [container], **({"affinity": node_affinity(nodes)} if nodes else {})}


def metadata(name: str, created: str = OLD) -> KubeObject:
    labels = {"kaito.sh/workspace": name}
    return {"namespace": "team", "name": name, "labels": labels, "creationTimestamp": created}


def workload(name: str, *nodes: str, gpus: int = 1, created: str = OLD, replicas: int = 1) -> KubeObject:
    template = {"spec": spec(gpus, *nodes)}
    return {"metadata": metadata(name, created), "spec": {"replicas": replicas, "template": template}}


def pod(name: str, node: str, *, gpus: int = 1, phase: str = "Running") -> KubeObject:
    return {"metadata": metadata(name), "spec": {**spec(gpus), "nodeName": node}, "status": {"phase": phase}}


def test_a_pod_has_the_gpus_of_its_node() -> None:
    assert taken_gpus("team/w", [], [pod("a", "n1", gpus=2), pod("a", "n2"), pod("b", "n1")]) == {
        "n1": {"team/a": 2, "team/b": 1},
        "n2": {"team/a": 1},
    }


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_has_none(phase: str) -> None:
    assert taken_gpus("team/w", [], [pod("a", "n1", phase=phase)]) == {}


def test_what_is_pending_or_needs_no_gpu_has_none() -> None:
    waiting = pod("a", "")
    assert taken_gpus("team/w", [workload("c", "n1", gpus=0)], [waiting, pod("b", "n1", gpus=0)]) == {}


def test_ones_own_are_not_taken() -> None:
    assert taken_gpus("team/a", [workload("a", "n1")], [pod("a", "n1")]) == {}


def test_the_same_name_in_another_namespace_is_another_workspace() -> None:
    assert taken_gpus("other/a", [], [pod("a", "n1")]) == {"n1": {"team/a": 1}}


def test_a_workload_has_what_its_pods_will_need() -> None:
    assert taken_gpus("team/w", [workload("a", "n1", "n2", replicas=2)], []) == {
        "n1": {"team/a": 1},
        "n2": {"team/a": 1},
    }


def test_a_pod_and_its_workload_count_once() -> None:
    assert taken_gpus("team/w", [workload("a", "n1")], [pod("a", "n1")]) == {"n1": {"team/a": 1}}


def test_pods_that_share_a_node_need_no_other() -> None:
    both = [pod("a", "n1"), pod("a", "n1")]
    assert taken_gpus("team/w", [workload("a", "n1", "n2", replicas=2)], both) == {"n1": {"team/a": 2}}


def test_the_node_that_a_pod_leaves_is_taken_until_it_is_gone() -> None:
    moved = workload("a", "n2", replicas=2)
    assert taken_gpus("team/w", [moved], [pod("a", "n1")]) == {"n1": {"team/a": 1}, "n2": {"team/a": 1}}


def both(looking: str, pods: Any = ()) -> dict[str, dict[str, int]]:
    """Two workloads that were meant for the same node at the same moment."""
    return taken_gpus(f"team/{looking}", [workload("a", "n1", created=OLD), workload("b", "n1", created=NEW)], pods)


def test_of_two_that_mean_the_same_node_the_later_looks_elsewhere() -> None:
    assert both("a") == {}
    assert both("b") == {"n1": {"team/a": 1}}
    assert both("c") == {"n1": {"team/a": 1, "team/b": 1}}


def test_the_one_that_is_there_stays() -> None:
    assert both("b", [pod("b", "n1")]) == {}
    assert both("a", [pod("b", "n1")]) == {"n1": {"team/b": 1}}


def test_workloads_of_the_same_second_go_by_name() -> None:
    same = [workload("b", "n1"), workload("a", "n1")]
    assert taken_gpus("team/a", same, []) == {}
    assert taken_gpus("team/b", same, []) == {"n1": {"team/a": 1}}


def test_the_order_of_what_is_read_does_not_matter() -> None:
    workloads = [workload("a", "n1", "n2", replicas=2), workload("b", "n2", created=NEW)]
    pods = [pod("a", "n1"), pod("c", "n2", gpus=3)]
    assert taken_gpus("team/b", workloads, pods) == taken_gpus("team/b", workloads[::-1], pods[::-1])


def test_gpus_of_any_vendor_count_and_nonsense_does_not() -> None:
    assert pod_gpus(spec(2, resource="amd.com/gpu")) == 2
    odd = {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "many", "cpu": "4"}}}, {"resources": "x"}, {}]}
    assert pod_gpus(odd) == 0


def test_the_nodes_that_a_pod_is_pinned_to() -> None:
    assert pinned_nodes(spec(1, "b", "a")) == ["a", "b"]
    assert pinned_nodes({}) == []
    expression = {"key": "pool", "operator": "In", "values": ["x"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    asked = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    assert pinned_nodes({"affinity": asked}) == []
    assert pinned_nodes({"affinity": node_affinity(["n"], asked)}) == ["n"]
