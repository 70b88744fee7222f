"""Which GPUs other pods have, whoever looks and in whatever order things happened."""

import pytest

from kaito_core.api import KubeObject
from kaito_core.reconcile.nodes.taken_gpus import pod_gpus, taken_gpus


def spec(gpus: int, resource: str = "nvidia.com/gpu") -> KubeObject:
    return {"containers": [{"name": "runtime", "resources": {"limits": {resource: str(gpus)} if gpus else {}}}]}


def pod(name: str, node: str, *, gpus: int = 1, phase: str = "Running", foreign: bool = False) -> KubeObject:
    labels = {} if foreign else {"kaito.sh/workspace": name}
    metadata = {"namespace": "team", "name": name, "labels": labels}
    return {"metadata": metadata, "spec": {**spec(gpus), "nodeName": node}, "status": {"phase": phase}}


def test_a_pod_has_the_gpus_of_its_node() -> None:
    assert taken_gpus("team/w", [pod("a", "n1", gpus=2), pod("a", "n2"), pod("b", "n1"), pod("a", "n2")]) == {
        "n1": {"Workspace 'team/a'": 2, "Workspace 'team/b'": 1},
        "n2": {"Workspace 'team/a'": 2},
    }


def test_a_pod_of_somebody_else_is_named_itself() -> None:
    assert taken_gpus("team/job", [pod("job", "n1", foreign=True)]) == {"n1": {"pod 'team/job'": 1}}


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_has_none(phase: str) -> None:
    assert taken_gpus("team/w", [pod("a", "n1", phase=phase)]) == {}


def test_what_is_pending_or_needs_no_gpu_has_none() -> None:
    assert taken_gpus("team/w", [pod("a", ""), pod("b", "n1", gpus=0)]) == {}


def test_the_workspaces_own_gpus_are_not_taken() -> None:
    assert taken_gpus("team/a", [pod("a", "n1")]) == {}


def test_the_same_name_in_another_namespace_is_another_workspace() -> None:
    assert taken_gpus("other/a", [pod("a", "n1")]) == {"n1": {"Workspace 'team/a'": 1}}


def test_the_order_of_what_is_read_does_not_matter() -> None:
    pods = [pod("a", "n1"), pod("c", "n2", gpus=3), pod("a", "n2", foreign=True)]
    assert taken_gpus("team/b", pods) == taken_gpus("team/b", pods[::-1])


def test_gpus_of_any_vendor_count_and_nonsense_does_not() -> None:
    assert pod_gpus(spec(2, resource="amd.com/gpu")) == 2
    odd = {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "many", "cpu": "4"}}}, {"resources": "x"}, {}]}
    assert pod_gpus(odd) == 0
