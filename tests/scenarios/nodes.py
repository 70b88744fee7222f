"""Workspaces on prepared nodes, and presets that span several."""

from collections.abc import Callable

import pytest

from scenarios.support.state import add_job, add_node, is_true, pinned, places, template, uids
from scenarios.support.world import World, workspace

__all__ = ["SCENARIOS"]


def a_distributed_preset_becomes_a_stateful_set(world: World) -> None:
    for name in ("gpu-1", "gpu-2"):
        add_node(world, name, gpus=1)
    annotations = {"kaito.sh/node-provider": "gpu_onprem"}
    document = workspace("w", "on-many", resource={"count": 2}, annotations=annotations)
    world.apply(document)
    world.wait_state("w", "Ready")
    live = world.existing("statefulsets", "w")
    assert (live["spec"]["replicas"], live["spec"]["serviceName"]) == (2, "w-headless")
    assert world.existing("services", "w-headless")["spec"]["clusterIP"] == "None"
    assert world.existing("services", "w")["spec"]["selector"]["statefulset.kubernetes.io/pod-name"] == "w-0"
    assert world.get("deployments", "w") is None


def the_pods_of_a_distributed_preset_are_replaced_together(world: World) -> None:
    if not world.cluster.has_controllers:
        pytest.skip("this cluster has no controller that counts the revisions of a StatefulSet")
    for name in ("gpu-1", "gpu-2"):
        add_node(world, name, gpus=1)
    parts = {"resource": {"count": 2}, "annotations": {"kaito.sh/node-provider": "gpu_onprem"}}
    world.apply(workspace("w", "on-many", **parts))
    world.wait_state("w", "Ready")
    before = set(uids(world, "w"))
    world.apply(workspace("w", "on-many", preset_options={"image": "registry.example/weights:2"}, **parts))
    world.wait("new pods", lambda: len(world.pods("w")) == 2 and not before & set(uids(world, "w")))
    world.wait_state("w", "Ready")


def another_preset_leaves_nothing_of_the_first(world: World) -> None:
    for name in ("gpu-1", "gpu-2"):
        add_node(world, name, gpus=1)
    annotations = {"kaito.sh/node-provider": "gpu_onprem"}
    world.apply(workspace("w", "on-many", resource={"count": 2}, annotations=annotations))
    world.wait_state("w", "Ready")
    world.apply(workspace("w", "on-cpu", annotations=annotations))
    world.wait_state("w", "Ready")
    world.wait("the StatefulSet and its Service are gone", lambda: not world.get("statefulsets", "w"))
    assert world.get("services", "w-headless") is None
    assert world.existing("deployments", "w")["spec"]["replicas"] == 1


def prepared_nodes_are_taken_by_name(world: World) -> None:
    add_node(world, "gpu-1", gpus=1)
    resource = {"preferredNodes": ["gpu-2"]}
    world.apply(workspace("w", "on-gpu", resource=resource))
    waiting = world.wait_reason("w", "ResourceReady", "NodesNotReady")
    assert waiting["status"] == "Unknown" and "gpu-2 does not exist" in waiting["message"]
    assert world.get("deployments", "w") is None
    add_node(world, "gpu-2", gpus=1)
    document = world.wait_state("w", "Ready")
    assert document["status"]["workerNodes"] == ["gpu-2"]
    assert pinned(world, "w") == places(world, "w") == ["gpu-2"]


def prepared_nodes_are_taken_by_label(world: World) -> None:
    add_node(world, "gpu-1", gpus=1, labels={"rack": "a"})
    add_node(world, "gpu-2", gpus=1, labels={"rack": "b"})
    resource = {"labelSelector": {"matchLabels": {"rack": "b"}}}
    world.apply(workspace("w", "on-gpu", resource=resource))
    assert world.wait_state("w", "Ready")["status"]["workerNodes"] == ["gpu-2"]


def a_lost_node_moves_nothing_and_comes_back(world: World) -> None:
    add_node(world, "gpu-1", gpus=1)
    world.apply(workspace("w", "on-gpu", resource={"preferredNodes": ["gpu-1"]}))
    world.wait_state("w", "Ready")
    before = template(world, "w")
    add_node(world, "gpu-1", gpus=1, ready=False)
    lost = world.wait_reason("w", "ResourceReady", "NodesNotReady")
    assert "gpu-1 is not ready" in lost["message"]
    world.wait("the summary follows", lambda: not is_true(world, "w", "WorkspaceSucceeded"))
    add_node(world, "gpu-1", gpus=1)
    world.wait_reason("w", "ResourceReady", "NodesReady")
    world.wait_state("w", "Ready")
    assert template(world, "w") == before


def a_better_node_moves_no_pod(world: World) -> None:
    add_node(world, "gpu-2", gpus=1, labels={"rack": "a"})
    world.apply(workspace("w", "on-gpu", resource={"labelSelector": {"matchLabels": {"rack": "a"}}}))
    world.wait_state("w", "Ready")
    add_node(world, "gpu-1", gpus=1, labels={"rack": "a"})  # the provider's order would put it first
    world.cause_pass("w")
    assert places(world, "w") == ["gpu-2"] and pinned(world, "w") == []


def what_happens_to_a_node_ends_no_pod(world: World) -> None:
    for name in ("gpu-1", "gpu-2"):
        add_node(world, name, gpus=1, labels={"rack": "a"})
    world.apply(workspace("w", "on-gpu", resource={"labelSelector": {"matchLabels": {"rack": "a"}}}))
    world.wait_state("w", "Ready")
    before, made, (node,) = uids(world, "w"), template(world, "w"), places(world, "w")

    def device_plugin(gpus: str) -> None:
        amounts = {"allocatable": {"nvidia.com/gpu": gpus}}
        world.cluster.patch("nodes", node, {"status": amounts}, "", subresource="status")

    taint = {"key": "maintenance", "value": "soon", "effect": "NoSchedule"}
    events: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "is cordoned": (
            lambda: world.cluster.patch("nodes", node, {"spec": {"unschedulable": True}}, ""),
            lambda: world.cluster.patch("nodes", node, {"spec": {"unschedulable": None}}, ""),
        ),
        "maintenance=soon:NoSchedule": (
            lambda: world.cluster.patch("nodes", node, {"spec": {"taints": [taint]}}, ""),
            lambda: world.cluster.patch("nodes", node, {"spec": {"taints": None}}, ""),
        ),
        "is the device plugin running": (lambda: device_plugin("0"), lambda: device_plugin("1")),
    }
    for words, (happens, passes) in events.items():
        happens()
        said = world.wait_reason("w", "ResourceReady", "NodesImpaired")
        assert said["status"] == "True" and f"{node} " in said["message"] and words in said["message"]
        assert world.existing("workspaces", "w")["status"]["state"] == "Ready"
        passes()
        world.wait_reason("w", "ResourceReady", "NodesReady")
        assert (uids(world, "w"), template(world, "w")) == (before, made), words
    world.wait("it was warned of", lambda: "NodesImpaired" in {event["reason"] for event in world.events("w")})


def a_gpu_that_another_pod_has_is_not_waited_for(world: World) -> None:
    add_node(world, "gpu-1", gpus=1, labels={"rack": "a"})
    add_job(world, "gpu-1")
    world.apply(workspace("w", "on-gpu", resource={"labelSelector": {"matchLabels": {"rack": "a"}}}))
    said = world.wait_reason("w", "ResourceReady", "NodesNotReady")["message"]
    assert f"gpu-1 has 0 of 1 GPUs free (pod '{world.namespace}/batch-job' uses 1)" in said
    assert world.get("deployments", "w") is None
    add_node(world, "gpu-2", gpus=1, labels={"rack": "a"})
    assert world.wait_state("w", "Ready")["status"]["workerNodes"] == ["gpu-2"]
    assert pinned(world, "w") == []


def a_node_with_little_memory_or_disk_is_not_taken(world: World) -> None:
    for name, resource, amount in (("gpu-1", "memory", "8Gi"), ("gpu-2", "ephemeral-storage", "20Gi")):
        add_node(world, name, gpus=1, labels={"rack": "a"})
        world.cluster.patch("nodes", name, {"status": {"allocatable": {resource: amount}}}, "", subresource="status")
    world.apply(workspace("w", "on-gpu", resource={"labelSelector": {"matchLabels": {"rack": "a"}}}))
    said = world.wait_reason("w", "ResourceReady", "NodesNotReady")["message"]
    assert "gpu-1 has 8 GiB of main memory, 16 GiB needed" in said
    assert "gpu-2 has 20 GiB of disk, 50 GiB needed" in said
    assert world.get("deployments", "w") is None
    add_node(world, "gpu-3", gpus=1, labels={"rack": "a"})
    world.wait_state("w", "Ready")
    requests = template(world, "w")["spec"]["containers"][0]["resources"]["requests"]
    assert (requests["memory"], requests["ephemeral-storage"]) == ("16Gi", "50Gi")


def another_count_restarts_nothing(world: World) -> None:
    for name in ("gpu-1", "gpu-2", "gpu-3"):
        add_node(world, name, gpus=1, labels={"rack": "a"})
    rack = {"labelSelector": {"matchLabels": {"rack": "a"}}}
    world.apply(workspace("w", "on-gpu", resource=rack))
    world.wait_state("w", "Ready")
    for count in (2, 3, 2):
        before = set(uids(world, "w"))
        world.apply(workspace("w", "on-gpu", resource={**rack, "count": count}))
        world.wait_state("w", "Ready")
        world.wait("all pods", lambda count=count: len(uids(world, "w")) == count)
        after = set(uids(world, "w"))
        assert before <= after or after <= before


_POOL = {"labelSelector": {"matchLabels": {"pool": "shared"}}}


def workspaces_with_one_selector_do_not_share_gpus(world: World) -> None:
    if not world.cluster.has_gc:
        pytest.skip("this cluster does not collect dependents")
    for name in ("gpu-1", "gpu-2"):
        add_node(world, name, gpus=1, labels={"pool": "shared"})
    for name in ("w", "v"):
        world.apply(workspace(name, "on-gpu", resource=_POOL))
    for name in ("w", "v"):
        world.wait_state(name, "Ready")
    assert sorted([*places(world, "w"), *places(world, "v")]) == ["gpu-1", "gpu-2"]
    world.apply(workspace("late", "on-gpu", resource=_POOL))
    waiting = world.wait_reason("late", "ResourceReady", "NodesNotReady")
    for owner in ("w", "v"):
        assert f"Workspace '{world.namespace}/{owner}' uses 1" in waiting["message"]
    assert world.get("deployments", "late") is None
    before = {name: uids(world, name) for name in ("w", "v")}
    for name in ("w", "v", "late"):
        world.cause_pass(name)
    assert {name: uids(world, name) for name in ("w", "v")} == before
    left = places(world, "w")
    world.delete("workspaces", "w")
    world.wait("its pods are gone", lambda: not world.get("deployments", "w") and not world.pods("w"))
    world.cause_pass("late")
    world.wait_state("late", "Ready")
    assert places(world, "late") == left


def gpus_that_are_left_on_a_node_are_used(world: World) -> None:
    add_node(world, "gpu-1", gpus=2, labels={"pool": "shared"})
    for name in ("w", "v"):
        world.apply(workspace(name, "on-gpu", resource=_POOL))
    for name in ("w", "v"):
        world.wait_state(name, "Ready")
        assert places(world, name) == ["gpu-1"]


def gpus_are_asked_for_by_the_name_that_the_node_has(world: World) -> None:
    add_node(world, "gpu-1", gpus=1, labels={"pool": "shared"}, gpu_resource="amd.com/gpu")
    world.apply(workspace("w", "on-gpu", resource=_POOL))
    world.wait_state("w", "Ready")
    spec = template(world, "w")["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"amd.com/gpu": "1"}
    assert "amd.com/gpu" in {toleration["key"] for toleration in spec["tolerations"]}


def a_strategy_can_be_changed(world: World) -> None:
    def strategy() -> object:
        return world.existing("deployments", "w")["spec"]["strategy"]

    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    assert strategy() == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    before = uids(world, "w")
    world.apply(workspace("w", annotations={"kaito.sh/strategy": "Recreate"}))
    world.wait("it is recreated", lambda: strategy() == {"type": "Recreate"})
    world.apply(workspace("w", annotations={"kaito.sh/max-surge": "50%"}))
    surging = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}}
    world.wait("it surges", lambda: strategy() == surging)
    world.apply(workspace("w", annotations={"kaito.sh/max-surge": "some"}))
    said = world.wait_reason("w", "WorkspaceSucceeded", "InvalidWorkspace")
    assert "metadata.annotations[kaito.sh/max-surge] must be a number of pods" in said["message"]
    assert strategy() == surging and uids(world, "w") == before
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")


def replicas_have_a_disruption_budget(world: World) -> None:
    world.apply(workspace("w", resource={"count": 2}))
    world.wait_state("w", "Ready")
    assert world.existing("poddisruptionbudgets", "w")["spec"]["maxUnavailable"] == 1
    world.apply(workspace("w", resource={"count": 1}))
    world.wait("the budget is gone", lambda: world.get("poddisruptionbudgets", "w") is None)
    world.wait_state("w", "Ready")


SCENARIOS = (
    workspaces_with_one_selector_do_not_share_gpus,
    gpus_that_are_left_on_a_node_are_used,
    gpus_are_asked_for_by_the_name_that_the_node_has,
    a_strategy_can_be_changed,
    replicas_have_a_disruption_budget,
    a_distributed_preset_becomes_a_stateful_set,
    the_pods_of_a_distributed_preset_are_replaced_together,
    another_preset_leaves_nothing_of_the_first,
    prepared_nodes_are_taken_by_name,
    prepared_nodes_are_taken_by_label,
    a_lost_node_moves_nothing_and_comes_back,
    a_better_node_moves_no_pod,
    what_happens_to_a_node_ends_no_pod,
    a_gpu_that_another_pod_has_is_not_waited_for,
    a_node_with_little_memory_or_disk_is_not_taken,
    another_count_restarts_nothing,
)
