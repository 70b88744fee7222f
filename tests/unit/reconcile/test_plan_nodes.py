"""Scenarios of nodes: lost, regained, better ones, and machines that are too small."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kaito_core.api import GpuSku, NodeState, parse_workspace
from kaito_core.api.nodes import RejectedNode
from kaito_core.errors import DoesNotFitError, ProviderError
from kaito_core.reconcile.nodes.request import node_request
from kaito_core.reconcile.plan import plan_failure
from kaito_core.reconcile.transition import has_changed

Make = Callable[..., Any]

NODES = ("node-a", "node-b", "node-c")
TEMPLATE = {"spec": {"containers": [{"name": "main", "image": "registry.example/llm:1"}]}}


LOST = NodeState(
    ("node-a",), "NodesNotReady", "1 of 2 nodes fit", rejected=(RejectedNode("node-b", "is not ready: no heartbeat"),)
)


def test_a_node_that_goes_bad_under_pods_that_serve_is_reported_and_nothing_is_done(
    world: Make, adapters: Make
) -> None:
    w = world(adapters(style=0.5), count=2)
    w.settle()
    ready, before = w.nodes, copy.deepcopy(w.child("Deployment"))
    w.nodes = LOST
    w.edit(**adapters(style=0.75))
    planned = w.step()
    assert "apply Deployment demo" not in w.actions(planned)
    assert "apply ConfigMap demo-serving" in w.actions(planned)  # what runs is still kept up to date
    assert w.condition("ResourceReady", planned) == (
        "True",
        "NodesImpaired",
        "nodes: node-a, node-b; node-b is not ready: no heartbeat. The pods on it are left alone",
    )
    assert (w.condition("InferenceReady", planned)[0], planned.status["workerNodes"]) == ("True", ["node-a", "node-b"])
    assert [(event.type, event.reason) for event in planned.events] == [("Warning", "NodesImpaired")]
    assert w.step().events == ()
    w.nodes = ready
    w.settle()
    assert (w.document["status"]["state"], w.condition("ResourceReady")[1]) == ("Ready", "NodesReady")
    assert w.child("Deployment") == before


def test_a_lost_node_whose_pod_serves_no_more_is_the_reason(world: Make) -> None:
    w = world(count=2)
    w.settle()
    w.nodes = LOST
    for pod in w.pods.values():
        if pod["spec"]["nodeName"] == "node-b":
            pod["status"]["conditions"][0]["status"] = "False"
    planned = w.step()
    assert w.condition("ResourceReady", planned) == (
        "Unknown",
        "NodesNotReady",
        "1 of 2 nodes fit (node-b: is not ready: no heartbeat)",
    )
    assert (planned.actions, planned.status["state"]) == ((), "Pending")


@pytest.mark.parametrize("preset", ["one-gpu", "four-gpus", "cpu"])
def test_nothing_that_happens_to_nodes_changes_what_was_made(world: Make, preset: str) -> None:
    w = world({"preset": {"name": preset}}, labelSelector={"matchLabels": {"pool": "a"}})
    large = GpuSku("Large", 8, 640, "H100")
    w.nodes = NodeState(("node-a", "node-b"), sku=large)
    w.settle()
    before = copy.deepcopy(w.children)
    for nodes in (
        NodeState(("node-b", "node-a"), sku=large),
        NodeState(("node-b",), sku=GpuSku("Small", 8, 128, "T4"), rejected=(RejectedNode("node-a", "is cordoned"),)),
        NodeState(("node-b",), sku=GpuSku("Tiny", 1, 8, "T4"), gpu_resource="amd.com/gpu"),
        NodeState((), "NodesNotReady", "none"),
        NodeState(("node-c",)),
    ):
        w.nodes = nodes
        planned = w.step()
        assert (planned.actions, planned.status["workerNodes"]) == ((), ["node-a"])
    assert w.children == before


def test_no_node_is_named_that_the_user_did_not_name(world: Make) -> None:
    for inference in ({"preset": {"name": "one-gpu"}}, {"preset": {"name": "spread"}}, {"template": TEMPLATE}):
        w = world(inference, labelSelector={"matchLabels": {"pool": "a"}})
        w.step()
        assert "node-" not in json.dumps(list(w.children.values()))
    named = world(preferredNodes=["node-b"])
    named.step()
    assert "node-b" in json.dumps(named.child("Deployment"))


def test_another_count_changes_the_number_of_pods_alone(world: Make) -> None:
    w = world(labelSelector={"matchLabels": {"pool": "a"}})
    w.settle()
    for count in (2, 3, 2, 1):
        before, uids = w.child("Deployment")["spec"]["template"], {pod["metadata"]["uid"] for pod in w.pods.values()}
        w.document["resource"]["count"] = count
        w.edit()
        w.nodes = NodeState(("node-a",), "NodesNotReady", "1 of 3 nodes fit") if count == 3 else NodeState(NODES)
        w.step()
        assert w.child("Deployment")["spec"] == {
            **w.child("Deployment")["spec"],
            "replicas": count,
            "template": before,
        }
        assert len({pod["metadata"]["uid"] for pod in w.pods.values()} & uids) == len(uids)
        w.nodes = NodeState(NODES)
        w.settle()


def test_another_template_waits_for_nodes(world: Make) -> None:
    w = world()
    w.settle()
    w.nodes = NodeState((), "NodesNotReady", "none")
    w.document["inference"] = {"preset": {"name": "one-gpu", "presetOptions": {"image": "registry.example/w:2"}}}
    w.edit()
    assert "apply Deployment demo" not in w.actions(w.step())


def test_nothing_is_started_that_lacks_nodes(world: Make) -> None:
    w = world()
    w.nodes = NodeState((), "NodesNotReady", "no quota", failed=True)
    planned = w.step()
    assert w.actions(planned) == ["apply ConfigMap demo-serving", "apply Service demo"]
    assert w.condition("ResourceReady", planned)[:2] == ("False", "NodesNotReady")
    assert w.condition("WorkspaceSucceeded", planned) == ("False", "NodesNotReady", "no quota")
    assert planned.status["state"] == "NotReady"


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
            GpuSku("Three", 3, 120, "A100"),
            "resource.instanceType does not fit: preset 'four-gpus' needs 4 GPUs of 40 GiB on each node, Three has 3",
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


def test_what_a_provider_notes_comes_back_to_it_until_it_notes_nothing(world: Make) -> None:
    w = world()
    noted = {"failures": "2"}
    w.nodes = NodeState((), "InsufficientCapacity", "no quota", failed=True, notes=noted)
    w.step()
    assert node_request(parse_workspace(w.document), None).notes == noted
    w.document["status"] = plan_failure(w.document, ProviderError("no answer"), w.now).status
    assert node_request(parse_workspace(w.document), None).notes == noted  # it had no say in that pass
    w.nodes = NodeState(("node-a",))
    w.settle()
    assert node_request(parse_workspace(w.document), None).notes == {}
    assert "nodeNotes" not in w.document["status"]


@pytest.mark.parametrize(("changed", "written"), [({"failures": "3"}, True), ({}, True), ({"failures": "2"}, False)])
def test_other_notes_are_another_status(world: Make, changed: dict[str, str], written: bool) -> None:
    w = world()
    w.nodes = NodeState((), "NodeClaimNotReady", "waiting", notes={"failures": "2"})
    w.settle()
    w.nodes = replace(w.nodes, notes=changed)
    assert has_changed(w.document["status"], w.plan().status) is written


@pytest.mark.parametrize("spoilt", [None, "text", ["a"], {"failures": 2}])
def test_notes_that_are_none(world: Make, spoilt: object) -> None:
    w = world()
    w.document["status"] = {"nodeNotes": spoilt}
    assert node_request(parse_workspace(w.document), None).notes == {}


@pytest.mark.parametrize(("asked", "wakes"), [(None, 30), (12.5, 12.5), (500, 30), (0, 1)])
def test_a_provider_is_called_when_it_asks_to(world: Make, asked: float | None, wakes: float) -> None:
    w = world()
    w.nodes = NodeState((), "InsufficientCapacity", "no quota", failed=True, wake_after_seconds=asked)
    assert w.plan().wake_after_seconds == wakes
