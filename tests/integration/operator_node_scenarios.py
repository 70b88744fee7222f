"""Workspaces on prepared nodes, and presets that span several."""

from operator_looks import add_node, is_true, pinned, template
from operator_world import World, workspace

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
    assert pinned(world, "w") == ["gpu-2"]


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
    assert pinned(world, "w") == ["gpu-2"]


SCENARIOS = (
    a_distributed_preset_becomes_a_stateful_set,
    another_preset_leaves_nothing_of_the_first,
    prepared_nodes_are_taken_by_name,
    prepared_nodes_are_taken_by_label,
    a_lost_node_moves_nothing_and_comes_back,
    a_better_node_moves_no_pod,
)
