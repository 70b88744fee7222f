"""Pools that have no node: pods come first, and the cluster's autoscaler makes nodes for them."""

from kaito_core.settings import Settings
from scenarios.support.state import add_node, pinned, template, warn
from scenarios.support.world import World, conditions, workspace

__all__ = ["SCENARIOS"]

_POOL = {"labelSelector": {"matchLabels": {"pool": "gpu"}}}
_ASKED = {"kaito.sh/node-provider": "scheduler"}


def pods_wait_for_a_pool_without_nodes(world: World) -> None:
    world.apply(workspace("w", "on-gpu", resource=_POOL, annotations=_ASKED))
    said = world.wait_reason("w", "ResourceReady", "WaitingForNodes")
    assert (
        said["status"] == "Unknown" and "waiting for a node with the labels pool=gpu and a free GPU" in said["message"]
    )
    (pod,) = world.wait("a pod", lambda: world.pods("w"))
    spec = template(world, "w")["spec"]
    assert spec["nodeSelector"] == {"pool": "gpu"} and "affinity" not in spec and pinned(world, "w") == []
    assert spec["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    about = {"kind": "Pod", **{key: pod["metadata"][key] for key in ("name", "namespace", "uid")}}
    words = "pod didn't trigger scale-up: 1 max node group size reached"
    warn(world.cluster, about, "NotTriggerScaleUp", words, world.namespace)

    def passed_on() -> bool:
        world.cause_pass("w")
        found = conditions(world.existing("workspaces", "w"))["ResourceReady"]["message"]
        return "nodes are available" in found and f"the autoscaler says NotTriggerScaleUp: {words}" in found

    world.wait("the words of the scheduler and the autoscaler", passed_on)
    found = world.existing("workspaces", "w")
    assert found["status"]["state"] == "Pending"
    assert {item["status"] for item in conditions(found).values()} == {"Unknown"}, "nothing has failed"
    assert not [event for event in world.events("w") if event["type"] == "Warning"]
    add_node(world, "gpu-1", gpus=1, labels={"pool": "gpu"})
    assert world.wait_state("w", "Ready")["status"]["workerNodes"] == ["gpu-1"]


def the_nodes_of_a_distributed_preset_come_for_its_pods(world: World) -> None:
    world.apply(workspace("w", "on-many", resource={**_POOL, "count": 2}, annotations=_ASKED))
    world.wait("its pods wait", lambda: len(world.pods("w")) == 2)
    assert template(world, "w", "statefulsets")["spec"]["nodeSelector"] == {"pool": "gpu"}
    add_node(world, "gpu-1", gpus=1, labels={"pool": "gpu"})
    world.wait(
        "one has a node",
        lambda: "1 of 2 pods have a node" in conditions(world.get("workspaces", "w"))["ResourceReady"]["message"],
    )
    add_node(world, "gpu-2", gpus=1, labels={"pool": "gpu"})
    assert world.wait_state("w", "Ready")["status"]["workerNodes"] == ["gpu-1", "gpu-2"]


def a_setting_has_the_pods_of_all_wait(world: World) -> None:
    world.stop()
    world.start(settings=Settings(namespaces=(world.namespace,), health_port=0, autoscaled_nodes=True))
    world.apply(workspace("w", "on-gpu", resource=_POOL))
    world.wait("a pod", lambda: world.pods("w"))
    world.wait_reason("w", "ResourceReady", "WaitingForNodes")
    checked = {"kaito.sh/node-provider": "gpu_onprem"}
    world.apply(workspace("checked", "on-gpu", resource=_POOL, annotations=checked))
    world.wait_reason("checked", "ResourceReady", "NodesNotReady")


SCENARIOS = (
    pods_wait_for_a_pool_without_nodes,
    the_nodes_of_a_distributed_preset_come_for_its_pods,
    a_setting_has_the_pods_of_all_wait,
)
