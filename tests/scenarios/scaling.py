"""The number of replicas: through the scale subresource, down to none, and by somebody who scales the Deployment."""

from kaito_core.api import KubeObject
from scenarios.support.state import add_node, template, uids
from scenarios.support.world import World, workspace

__all__ = ["SCENARIOS"]

_RACK = {"labelSelector": {"matchLabels": {"rack": "a"}}}


def _scale(world: World, kind: str, replicas: int) -> KubeObject:
    """Scales as kubectl does."""
    return world.cluster.patch(kind, "w", {"spec": {"replicas": replicas}}, world.namespace, subresource="scale")


def _serve(world: World, *nodes: str) -> None:
    for name in nodes:
        add_node(world, name, gpus=1, labels={"rack": "a"})
    world.apply(workspace("w", "on-gpu", resource=_RACK))
    world.wait_state("w", "Ready")


def _wait_pods(world: World, count: int) -> set[str]:
    world.wait(f"{count} pods", lambda: len(uids(world, "w")) == count)
    world.wait_state("w", "Ready")
    world.wait("they are counted", lambda: world.existing("workspaces", "w")["status"]["replicas"] == count)
    return set(uids(world, "w"))


def an_autoscaler_scales_the_workspace(world: World) -> None:
    _serve(world, "gpu-1", "gpu-2")
    (first,) = _wait_pods(world, 1)
    made = template(world, "w")
    scale = _scale(world, "workspaces", 2)
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 2},
        {"replicas": 1, "selector": "kaito.sh/workspace=w"},
    )
    assert first in _wait_pods(world, 2)
    world.apply(workspace("w", "on-gpu", resource={**_RACK, "count": 1}))  # the user's manifest does not say spec
    world.wait_state("w", "Ready")
    assert len(_wait_pods(world, 2)) == 2 and template(world, "w") == made
    world.patch("workspaces", "w", {"spec": {"replicas": None}})
    _wait_pods(world, 1)  # resource.count decides again
    assert template(world, "w") == made


def no_replica_keeps_the_rest(world: World) -> None:
    _serve(world, "gpu-1")
    made = template(world, "w")
    _scale(world, "workspaces", 0)
    _wait_pods(world, 0)
    status = world.existing("workspaces", "w")["status"]
    assert {item["reason"] for item in status["conditions"]} == {"ScaledToZero"}
    assert (status["workerNodes"], world.existing("deployments", "w")["spec"]["replicas"]) == ([], 0)
    assert world.get("services", "w") is not None and world.get("configmaps", "w-serving") is not None
    assert not [event for event in world.events("w") if event["type"] == "Warning"]
    _scale(world, "workspaces", 1)
    _wait_pods(world, 1)
    assert template(world, "w") == made


def whoever_scales_the_deployment_is_not_fought(world: World) -> None:
    _serve(world, "gpu-1", "gpu-2", "gpu-3")
    before = set(uids(world, "w"))
    _scale(world, "deployments", 2)
    two = _wait_pods(world, 2)
    world.cause_pass("w")
    assert before < two == set(uids(world, "w"))
    world.apply(workspace("w", "on-gpu", resource=_RACK, adapters=[]))
    world.cause_pass("w")
    assert set(uids(world, "w")) == two, "an edit of something else is no reason"
    world.apply(workspace("w", "on-gpu", resource={**_RACK, "count": 3}))
    assert two < _wait_pods(world, 3), "an edit of the number is"


SCENARIOS = (
    an_autoscaler_scales_the_workspace,
    no_replica_keeps_the_rest,
    whoever_scales_the_deployment_is_not_fought,
)
