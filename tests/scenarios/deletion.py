"""A Workspace is deleted: at every stage, and with its provider's type gone."""

from collections.abc import Callable

from kaito_core.controller.work.finalizers import NODES_FINALIZER
from kaito_testing.world.pods import PodFailure
from scenarios.support.karpenter import first_claim, install_nodeclaims
from scenarios.support.world import World, workspace

__all__ = ["SCENARIOS"]

_ON_AZURE = {"instanceType": "Standard_NC24ads_A100_v4"}


def _at_once(world: World) -> None:
    world.apply(workspace("w"))


def _refused(world: World) -> None:
    world.apply(workspace("w", "no-such-preset"))
    world.wait_state("w", "Failed")


def _waiting_for_nodes(world: World) -> None:
    world.apply(workspace("w", "on-gpu", resource={"preferredNodes": ["nowhere"]}))
    world.wait_reason("w", "ResourceReady", "NodesNotReady")


def _failing(world: World) -> None:
    world.fail_pods(PodFailure("CrashLoopBackOff"))
    world.apply(workspace("w"))
    world.wait_state("w", "NotReady")


def _served(world: World) -> None:
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")


def _unwatched(world: World) -> None:
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.stop()


_STAGES: tuple[Callable[[World], None], ...] = (_at_once, _refused, _waiting_for_nodes, _failing, _served, _unwatched)


def deletion_ends_at_every_stage(world: World) -> None:
    for reach in _STAGES:
        reach(world)
        world.delete("workspaces", "w")
        if reach is _unwatched:
            world.start()
        world.wait(f"gone: {reach.__name__}", lambda: world.get("workspaces", "w") is None)
        children = (("deployments", "w"), ("services", "w"), ("configmaps", "w-serving"))
        for kind, name in () if world.cluster.has_gc else children:  # what a cluster's collector would do
            world.delete(kind, name)
        world.wait("no child", lambda children=children: not any(world.get(*child) for child in children))
        world.fail_pods(None)


def deletion_ends_where_the_providers_type_is_gone(world: World) -> None:
    install_nodeclaims(world.cluster)
    world.apply(workspace("w", "on-gpu", resource=_ON_AZURE))
    first_claim(world)
    assert world.existing("workspaces", "w")["metadata"]["finalizers"] == [NODES_FINALIZER]
    world.cluster.delete("customresourcedefinitions", "nodeclaims.karpenter.sh", "")
    world.delete("workspaces", "w")
    world.wait("the Workspace is gone", lambda: world.get("workspaces", "w") is None)


SCENARIOS = (deletion_ends_at_every_stage, deletion_ends_where_the_providers_type_is_gone)
