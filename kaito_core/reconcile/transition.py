"""From the status that a Workspace has to the next one: what is written, and the events that changes are worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from kaito_core.api import Workspace
from kaito_core.api.conditions import (
    INFERENCE_READY,
    NODE_CLAIM_READY,
    READY,
    RESOURCE_READY,
    WORKSPACE_SUCCEEDED,
    Condition,
    merge_conditions,
)
from kaito_core.api.strength import is_unusual, strength_text
from kaito_core.errors import FieldError
from kaito_core.reconcile.status import ANY_NODE, NODES_IMPAIRED, Outlook

__all__ = ["Event", "has_changed", "news", "next_status", "summary"]

_NOT_REACHED = "NotReached"  #: reason: no pass has looked at it yet
_OURS = frozenset({RESOURCE_READY, NODE_CLAIM_READY, INFERENCE_READY, WORKSPACE_SUCCEEDED, READY})


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event to emit.

    Attributes:
        type: "Normal" or "Warning".
        reason: CamelCase category.
        message: What happened, in words.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def next_status(
    previous: Mapping[str, Any], generation: int, outlook: Outlook, now: datetime
) -> tuple[dict[str, Any], tuple[Event, ...]]:
    """Returns the status to write, and an event for each condition that has changed.

    Args:
        previous: The status that the Workspace has.
        generation: Its metadata.generation.
        outlook: How things stand.
        now: For transition times.
    """
    before = [condition for condition in previous.get("conditions") or [] if isinstance(condition, Mapping)]
    ready = [replace(found, type=READY) for found in outlook.conditions if found.type == WORKSPACE_SUCCEEDED]
    observed = [*outlook.conditions, *ready, *_not_reached(before, outlook.conditions)]
    current = {condition.type for condition in outlook.conditions} | {READY}
    conditions = merge_conditions([dict(c) for c in before], observed, generation=generation, now=now)
    if INFERENCE_READY not in current:  # the pass ended early: of what it did not reach, the last observation stays
        conditions += [dict(c) for c in before if c.get("type") in _OURS - current]
    status: dict[str, Any] = {
        "conditions": sorted(conditions, key=lambda condition: str(condition["type"])),
        "state": outlook.state,
        "observedGeneration": generation,
    }
    for key, value in (
        ("workerNodes", None if outlook.nodes is None else list(outlook.nodes)),
        ("adapters", None if outlook.adapters is None else list(outlook.adapters)),
        ("endpoint", outlook.endpoint or None),
        ("replicas", outlook.replicas),
        ("selector", outlook.selector or None),
    ):
        kept = previous.get(key) if value is None else value
        if kept is not None:
            status[key] = kept
    if notes := previous.get("nodeNotes") if outlook.notes is None else dict(outlook.notes):
        status["nodeNotes"] = notes
    idle = previous.get("unused") if outlook.unused is None else list(outlook.unused)
    if idle:
        status["unused"] = idle
    return status, (*_unused_event(previous.get("unused"), outlook.unused or ()), *_events(before, outlook.conditions))


def _unused_event(before: object, now: Sequence[str]) -> tuple[Event, ...]:
    """Returns one event for what has no effect and was not said before."""
    known = before if isinstance(before, list) else []
    news = [words for words in now if words not in known]
    return (Event("Warning", "NotUsed", "; ".join(news)),) if news else ()


def _not_reached(before: Sequence[Mapping[str, Any]], current: Sequence[Condition]) -> list[Condition]:
    """Returns the conditions of which there is no observation yet, since the first pass ended early: none is absent."""
    known = {condition.type for condition in current} | {condition.get("type") for condition in before}
    summary = next((found for found in current if found.type == WORKSPACE_SUCCEEDED), None)
    if summary is None:
        return []
    message = f"not looked at yet: {summary.reason} comes first"
    return [
        Condition(name, "Unknown", _NOT_REACHED, message)
        for name in (RESOURCE_READY, INFERENCE_READY)
        if name not in known
    ]


def _events(before: Sequence[Mapping[str, Any]], current: Sequence[Condition]) -> tuple[Event, ...]:
    """Returns one event for each condition that has changed, for the summary only where no part says the same."""
    old = {condition.get("type"): condition for condition in before if condition.get("reason") != _NOT_REACHED}
    events: list[Event] = []
    for condition in current:
        then = old.get(condition.type, {})
        if (then.get("status"), then.get("reason")) == (condition.status, condition.reason):
            continue
        if condition.message == ANY_NODE and not then:
            continue  # no node was asked for, so none has become ready
        if any(event.reason == condition.reason for event in events) or condition.reason.endswith("Pending"):
            continue
        # A summary that is Unknown for a reason of its own is a pass that failed; parts are Unknown while they wait.
        failed = condition.status == "Unknown" and condition.type == WORKSPACE_SUCCEEDED
        bad = failed or condition.status == "False" or condition.reason == NODES_IMPAIRED
        kind: Literal["Normal", "Warning"] = "Warning" if bad else "Normal"
        events.append(Event(kind, condition.reason, condition.message))
    return tuple(events)


def news(workspace: Workspace, names: Sequence[FieldError]) -> tuple[Event, ...]:
    """Returns what is said of a Workspace once per generation.

    Args:
        workspace: The Workspace; strengths that upstream would refuse are listed.
        names: How the preset's name was understood.
    """
    if workspace.status.get("observedGeneration") == workspace.generation:
        return ()
    return (*(Event("Normal", "PresetFoundByWeights", str(name)) for name in names), *_unusual_strengths(workspace))


def _unusual_strengths(workspace: Workspace) -> tuple[Event, ...]:
    unusual = [adapter for adapter in workspace.inference.adapters if is_unusual(adapter.strength)]
    if not unusual:
        return ()
    listed = ", ".join(f"'{adapter.name}' ({strength_text(adapter.strength)})" for adapter in unusual)
    return (Event("Warning", "StrengthOutsideUnitRange", f"strengths outside 0 to 1 are applied as written: {listed}"),)


def summary(status: Mapping[str, Any]) -> str:
    """Returns a status in words: the message of its condition WorkspaceSucceeded."""
    messages = (found["message"] for found in status["conditions"] if found["type"] == WORKSPACE_SUCCEEDED)
    return str(next(messages, ""))


def has_changed(previous: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Returns whether a status differs from the one before it; conditions of other types than ours do not count."""
    before = {found["type"]: found for found in previous.get("conditions") or [] if found.get("type") in _OURS}
    if before != {condition["type"]: condition for condition in status["conditions"]}:
        return True
    others = {*status, "nodeNotes", "unused"} - {"conditions"}  # these two are the only ones that end
    return any(previous.get(key) != status.get(key) for key in others)
