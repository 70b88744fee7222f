"""Scenarios of nodes: lost, regained, better ones, and machines that are too small."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from kaito_core.api import GpuSku, NodeState
from kaito_core.api.nodes import RejectedNode
from kaito_core.errors import DoesNotFitError
from kaito_core.reconcile.plan import plan_failure

Make = Callable[..., Any]


def test_a_lost_node_stops_nothing_and_says_so(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5), count=2)
    w.settle()
    ready = w.nodes
    w.nodes = NodeState(
        ("node-a",), "NodesNotReady", "1 of 2 nodes fit", rejected=(RejectedNode("node-b", "is not ready"),)
    )
    w.edit(**adapters(style=0.75))
    planned = w.step()
    assert "apply Deployment demo" not in w.actions(planned)
    assert "apply ConfigMap demo-serving" in w.actions(planned)  # what runs is still kept up to date
    assert w.condition("ResourceReady", planned) == (
        "Unknown",
        "NodesNotReady",
        "1 of 2 nodes fit (node-b: is not ready)",
    )
    assert w.condition("InferenceReady", planned)[0] == "True"
    assert (planned.status["state"], planned.status["workerNodes"]) == ("Pending", ["node-a"])
    assert [event.reason for event in planned.events] == ["NodesNotReady"]
    assert w.step().events == ()
    w.nodes = ready
    w.settle()
    assert w.document["status"]["state"] == "Ready"


def test_nothing_is_started_that_lacks_nodes(world: Make) -> None:
    w = world()
    w.nodes = NodeState((), "NodesNotReady", "no quota", failed=True)
    planned = w.step()
    assert w.actions(planned) == ["apply ConfigMap demo-serving", "apply Service demo"]
    assert w.condition("ResourceReady", planned)[:2] == ("False", "NodesNotReady")
    assert w.condition("WorkspaceSucceeded", planned) == ("False", "NodesNotReady", "no quota")
    assert planned.status["state"] == "NotReady"


def test_pods_stay_where_they_are_when_a_better_node_appears(world: Make) -> None:
    w = world()
    w.nodes = NodeState(("node-b", "node-c"))
    w.settle()
    before = copy.deepcopy(w.child("Deployment"))
    w.nodes = NodeState(("node-a", "node-b", "node-c"))
    w.settle()
    assert (w.child("Deployment"), w.document["status"]["workerNodes"]) == (before, ["node-b"])
    w.nodes = NodeState(("node-a", "node-c"))
    w.settle()
    assert w.document["status"]["workerNodes"] == ["node-a"]
    assert "node-b" not in json.dumps(w.child("Deployment"))


@pytest.mark.parametrize(
    ("preset", "count", "sku", "message"),
    [
        (
            "one-gpu",
            1,
            GpuSku("Small", 1, 8, "T4"),
            "resource.instanceType does not fit: preset 'one-gpu' needs 14 GiB of GPU memory, Small has 8 GiB",
        ),
        (
            "four-gpus",
            1,
            GpuSku("", 2, 48, "A10"),
            "resource.instanceType does not fit: preset 'four-gpus' needs 100 GiB of GPU memory, the smallest node has "
            "48 GiB",
        ),
        (
            "four-gpus",
            1,
            GpuSku("Two", 2, 160, "A100"),
            "resource.instanceType does not fit: preset 'four-gpus' needs 4 GPUs of 80 GiB on each node, Two has 2",
        ),
        (
            "spread",
            2,
            GpuSku("Small", 1, 16, "T4"),
            "resource.instanceType does not fit: preset 'spread' needs 40 GiB of GPU memory, 2 of Small has 32 GiB; "
            "raise resource.count or choose a larger machine",
        ),
    ],
)
def test_machines_that_are_too_small(world: Make, preset: str, count: int, sku: GpuSku, message: str) -> None:
    w = world({"preset": {"name": preset}}, count=count)
    w.nodes = NodeState(("node-a", "node-b"), sku=sku)
    with pytest.raises(DoesNotFitError) as caught:
        w.plan()
    assert str(caught.value) == message
    planned = plan_failure(w.document, caught.value, w.now)
    assert w.condition("WorkspaceSucceeded", planned) == ("False", "DoesNotFit", f"{message}; edit the Workspace")
    assert (planned.actions, planned.wake_after_seconds) == ((), None)
    assert [(event.type, event.reason) for event in planned.events] == [("Warning", "DoesNotFit")]
