"""Which Workspaces a change concerns. Pure functions."""

from collections.abc import Callable, Iterable
from typing import Any

from kaito_core.api import NODES, KubeObject
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.controller.watch.cache import Change, Key, key_of

__all__ = ["concerned", "is_asked_for"]


def _node_essence(node: KubeObject | None) -> Any:
    """Returns what can make a node fit or not; kubelets report much else every few minutes."""
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


def concerned(change: Change, everyone: Callable[[], Iterable[Key]]) -> set[Key]:
    """Returns the Workspaces to look at after a change.

    Args:
        change: What has changed.
        everyone: Returns all Workspaces; asked only where any of them may be concerned.
    """
    either = [obj for obj in (change.old, change.new) if obj is not None]
    if change.resource == WORKSPACES:
        return {(obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in either}
    if change.resource == NODES:
        return set(everyone()) if _node_essence(change.old) != _node_essence(change.new) else set()
    return {key for obj in either if (key := key_of(obj)) is not None}


def is_asked_for(change: Change) -> bool:
    """Returns whether somebody asks for something that nobody has looked at yet: a new Workspace, or an edit of one."""
    if change.resource != WORKSPACES or change.new is None:
        return False
    observed = (change.new.get("status") or {}).get("observedGeneration")
    return bool(observed != change.new["metadata"].get("generation"))
