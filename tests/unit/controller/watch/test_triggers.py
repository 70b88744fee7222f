"""Which Workspaces a change affects, and which changes are urgent."""

from typing import Any

import pytest

from kaito_core.api import NODES, KubeObject
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.controller.records import Change
from kaito_core.controller.watch.triggers import affected, is_urgent
from kaito_core.reconcile.objects.manifests import DEPLOYMENTS, PODS


def obj(name: str, version: int, *, workspace: str = "w", **parts: Any) -> KubeObject:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version)}
    labels = {"kaito.sh/workspace": workspace}
    return {"metadata": {**metadata, "labels": labels, **parts.pop("metadata", {})}, **parts}


def node(**parts: Any) -> KubeObject:
    status = {"allocatable": {"nvidia.com/gpu": "1"}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"name": "n", "uid": "u"}, "status": {**status, **parts}}


@pytest.mark.parametrize(
    ("new", "matters"),
    [
        (node(images=["a", "b"]), False),
        (node(allocatable={"nvidia.com/gpu": "0"}), True),
        (node(conditions=[{"type": "Ready", "status": "Unknown"}]), True),
        (node(conditions=[{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]), False),
        ({**node(), "spec": {"unschedulable": True}}, True),
        (None, True),
    ],
)
def test_a_node_affects_every_workspace_where_it_matters(new: KubeObject | None, matters: bool) -> None:
    woken = affected(Change(NODES, node(), new), lambda: [("ns", "a"), ("ns", "b")])
    assert woken == ({("ns", "a"), ("ns", "b")} if matters else set())


def test_a_child_affects_its_workspace_of_before_and_after() -> None:
    change = Change(PODS, obj("p", 1), obj("p", 2, workspace="x"))
    assert affected(change, list) == {("ns", "w"), ("ns", "x")}


@pytest.mark.parametrize(
    ("generation", "status", "urgent"),
    [(1, None, True), (2, {"observedGeneration": 1}, True), (2, {"observedGeneration": 2}, False)],
    ids=["new", "edited", "looked at"],
)
def test_a_workspace_that_nobody_has_looked_at_since_its_edit_is_urgent(
    generation: int, status: KubeObject | None, urgent: bool
) -> None:
    new = obj("w", 2, metadata={"generation": generation}, status=status)
    assert is_urgent(Change(WORKSPACES, None, new)) == urgent
    assert not is_urgent(Change(WORKSPACES, new, None))
    assert not is_urgent(Change(DEPLOYMENTS, None, new))
