"""KAITO's own operator: what it made is taken over or refused, and while it is there this one stands by."""

from typing import Any

from kaito_core.api import KubeObject
from kaito_core.reconcile.takeover import UPSTREAM_FINALIZER, UPSTREAM_WEBHOOK
from scenarios.support.karpenter import claims, install_nodeclaims
from scenarios.support.state import add_node, template
from scenarios.support.world import World, workspace

__all__ = ["SCENARIOS"]

_RACK = {"labelSelector": {"matchLabels": {"rack": "a"}}}
_LABELS = {"kaito.sh/workspace": "w"}


def _served_by_kaito(world: World, kind: str, owner: dict[str, Any] | None = None) -> None:
    """Leaves a Workspace as KAITO leaves it: with its finalizer, and a workload that holds the only GPU."""
    world.stop()
    add_node(world, "gpu-1", gpus=1, labels={"rack": "a"})
    world.apply(workspace("w", "on-gpu", resource=_RACK))
    world.patch("workspaces", "w", {"metadata": {"finalizers": [UPSTREAM_FINALIZER]}})
    document = world.existing("workspaces", "w")
    reference = {key: document[key] for key in ("apiVersion", "kind")}
    reference |= {"name": "w", "uid": document["metadata"]["uid"], "controller": True}
    gpu = {"nvidia.com/gpu": "1"}
    container = {"name": "w", "image": "kaito/kaito-base:1", "resources": {"limits": gpu, "requests": gpu}}
    pods = {"metadata": {"labels": _LABELS}, "spec": {"containers": [container]}}
    spec: dict[str, Any] = {"replicas": 1, "selector": {"matchLabels": _LABELS}, "template": pods}
    if kind == "StatefulSet":
        spec["serviceName"] = "w-headless"
    metadata = {"name": "w", "ownerReferences": [owner or reference]}
    world.apply(
        {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}, manager="workspace-controller"
    )
    world.wait("its pod", lambda: world.pods("w"))


def _taken_over(world: World, kind: str) -> None:
    world.start()
    world.wait_state("w", "Ready")
    world.wait("ours serves", lambda: [c["name"] for c in template(world, "w")["spec"]["containers"]] == ["runtime"])
    said = [event["message"] for event in world.events("w") if event["reason"] == "TakenOver"]
    assert said == [f"{kind} 'w', which another operator made, is replaced: its pods end, and ours start"]


def a_stateful_set_of_kaito_is_replaced(world: World) -> None:
    _served_by_kaito(world, "StatefulSet")
    _taken_over(world, "StatefulSet")
    assert world.get("statefulsets", "w") is None


def a_deployment_of_kaito_is_replaced_and_not_merged(world: World) -> None:
    _served_by_kaito(world, "Deployment")
    before = world.existing("deployments", "w")["metadata"]["uid"]
    _taken_over(world, "Deployment")
    assert world.existing("deployments", "w")["metadata"]["uid"] != before


def a_workload_of_somebody_else_is_refused(world: World) -> None:
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "4f1c1f0e-0000-4000-8000-000000000000"}
    made: KubeObject = world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}})
    _served_by_kaito(world, "StatefulSet", {**stranger, "uid": made["metadata"]["uid"]})
    world.start()
    said = world.wait_reason("w", "WorkspaceSucceeded", "NameTaken")["message"]
    assert said.startswith("StatefulSet 'w' belongs to ConfigMap 'other'; rename this Workspace or remove")
    assert world.get("deployments", "w") is None and world.get("statefulsets", "w") is not None


def what_kaito_made_is_released_with_the_workspace(world: World) -> None:
    install_nodeclaims(world.cluster)
    labels = {"kaito.sh/workspace": "w", "kaito.sh/workspacenamespace": world.namespace}
    claim = {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": "ws1", "labels": labels}}
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.cluster.apply({**claim, "spec": {}})
    foreign = {"metadata": {"finalizers": ["example.com/theirs", UPSTREAM_FINALIZER]}}
    world.patch("workspaces", "w", foreign)
    world.delete("workspaces", "w")
    world.wait("its claims are gone", lambda: not claims(world.cluster))
    world.wait(
        "its finalizer is gone",
        lambda: world.existing("workspaces", "w")["metadata"]["finalizers"] == ["example.com/theirs"],
    )
    world.patch("workspaces", "w", {"metadata": {"finalizers": None}})
    world.wait("it is gone", lambda: world.get("workspaces", "w") is None)


def while_kaito_is_there_this_one_stands_by(world: World) -> None:
    world.stop()
    hooks = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    world.cluster.apply({**hooks, "metadata": {"name": UPSTREAM_WEBHOOK}, "webhooks": []})
    try:
        world.start()
        world.apply(workspace("w"))
        world.wait("it is said", lambda: world.events("w"))
        world.cause_pass("w")
        (event,) = world.events("w")
        assert (event["type"], event["reason"]) == ("Warning", "AnotherOperator")
        assert f"ValidatingWebhookConfiguration '{UPSTREAM_WEBHOOK}'" in event["message"]
        assert world.get("deployments", "w") is None and not world.existing("workspaces", "w").get("status")
    finally:
        world.cluster.delete("validatingwebhookconfigurations", UPSTREAM_WEBHOOK, "")
    world.stop()
    world.start()
    world.wait_state("w", "Ready")


SCENARIOS = (
    a_stateful_set_of_kaito_is_replaced,
    a_deployment_of_kaito_is_replaced_and_not_merged,
    a_workload_of_somebody_else_is_refused,
    what_kaito_made_is_released_with_the_workspace,
    while_kaito_is_there_this_one_stands_by,
)
