"""The plan of a pass: `difference` makes the actions, `status` says how things stand; both read the same snapshot."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.errors import BackendError, NotReadyError, WorkspaceError
from kaito_core.reconcile.actions import Action, Apply, Delete
from kaito_core.reconcile.desired import Desired
from kaito_core.reconcile.difference import difference
from kaito_core.reconcile.objects.service import is_open_to_all
from kaito_core.reconcile.observed import Observed
from kaito_core.reconcile.status import Outlook, failure, outlook
from kaito_core.reconcile.takeover import is_made_by_another
from kaito_core.reconcile.transition import Event, news, next_status

__all__ = ["Plan", "plan", "plan_failure"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    Attributes:
        actions: In order; each is idempotent, and the next pass takes up what a failure left.
        status: The status to write, if it differs from the Workspace's.
        events: Events to emit, once each.
        announced: Events of what the actions do, to emit once they are done.
        wake_after_seconds: When to look again if no change is seen before; None: never.
    """

    actions: tuple[Action, ...]
    status: dict[str, Any]
    events: tuple[Event, ...] = ()
    announced: tuple[Event, ...] = ()
    wake_after_seconds: float | None = None


def plan(desired: Desired, observed: Observed, now: datetime) -> Plan:
    """Returns what to do for a Workspace that can be served.

    Args:
        desired: What should exist.
        observed: What there is.
        now: For transition times.

    Raises:
        NotReadyError: Something has to be cleared away first.
    """
    actions = difference(desired, observed)
    kind = desired.workload["kind"]
    changing = any(isinstance(action, Apply) and action.manifest["kind"] == kind for action in actions)
    workspace, current = desired.workspace, outlook(desired, observed, changing=changing)
    said = (*news(workspace, desired.notices), *_unguarded(desired))
    planned = _finish(workspace.status, workspace.generation, actions, current, now, events=said)
    return replace(planned, announced=_takeovers(actions, observed))


def _unguarded(desired: Desired) -> tuple[Event, ...]:
    """Returns a warning, once per generation, where anybody may use a model that is served outside the cluster."""
    workspace = desired.workspace
    if workspace.inference.preset is None or not is_open_to_all(workspace):
        return ()
    containers = desired.workload["spec"]["template"]["spec"]["containers"]
    asks_for_key = any("--api-key-file" in str(each) for each in containers)
    if asks_for_key or workspace.status.get("observedGeneration") == workspace.generation:
        return ()
    message = (
        "a load balancer serves the model outside the cluster, and no API key is required: limit it to "
        "inference.service.loadBalancerSourceRanges, or put a gateway that asks for a key in front"
    )
    return (Event("Warning", "ServedWithoutKey", message),)


def _takeovers(actions: Iterable[Action], observed: Observed) -> tuple[Event, ...]:
    """Returns an event for each workload of another operator that is replaced."""
    return tuple(
        Event(
            "Warning",
            "TakenOver",
            f"{action.kind} '{action.name}', which another operator made, is replaced: its pods end, and ours start",
        )
        for action in actions
        if isinstance(action, Delete)
        and (child := observed.child(action.kind, action.name)) is not None
        and is_made_by_another(child)
    )


def plan_failure(document: KubeObject, error: WorkspaceError | NotReadyError | BackendError, now: datetime) -> Plan:
    """Returns the plan after a pass that ended in an error: no actions, so that what runs keeps running.

    Args:
        document: The Workspace as the API server has it; it need not be valid.
        error: What ended the pass.
        now: For transition times.
    """
    generation = document["metadata"].get("generation", 0)
    return _finish(document.get("status") or {}, generation, (), failure(error), now)


def _finish(
    previous: Mapping[str, Any],
    generation: int,
    actions: tuple[Action, ...],
    current: Outlook,
    now: datetime,
    events: Sequence[Event] = (),
) -> Plan:
    status, changes = next_status(previous, generation, current, now)
    return Plan(actions, status, (*events, *changes), wake_after_seconds=current.wake_after_seconds)
