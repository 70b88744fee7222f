"""Which Workspaces to look at after a change, and which of them first. Pure functions."""

from collections.abc import Callable, Iterable
from typing import Any

from kaito_core.api import NODES, KubeObject
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.controller.records import Change, Key
from kaito_core.controller.watch.cache import key_of

__all__ = ["affected", "is_urgent"]


def _node_essence(node: KubeObject | None) -> Any:
    """Returns the parts of a node that decide whether it fits; kubelets update others every few minutes."""
    if node is None:
        return None
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    ready = [
        (condition.get("status"), condition.get("reason"), condition.get("message"))
        for condition in status.get("conditions") or ()
        if condition.get("type") == "Ready"
    ]
    return (
        metadata.get("uid"),
        metadata.get("labels"),
        "deletionTimestamp" in metadata,
        spec.get("unschedulable", False),
        spec.get("taints") or [],
        status.get("allocatable"),
        ready,
    )


def affected(change: Change, everyone: Callable[[], Iterable[Key]]) -> set[Key]:
    """Returns the Workspaces to look at after a change.

    Args:
        change: What has changed.
        everyone: Returns all Workspaces; called only where the change can affect any of them.
    """
    either = [obj for obj in (change.old, change.new) if obj is not None]
    if change.resource == WORKSPACES:
        return {(obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in either}
    if change.resource == NODES:
        return set(everyone()) if _node_essence(change.old) != _node_essence(change.new) else set()
    return {key for obj in either if (key := key_of(obj)) is not None}


def is_urgent(change: Change) -> bool:
    """Returns whether a change is a new or edited Workspace that no pass has looked at yet."""
    if change.resource != WORKSPACES or change.new is None:
        return False
    observed = (change.new.get("status") or {}).get("observedGeneration")
    return bool(observed != change.new["metadata"].get("generation"))
