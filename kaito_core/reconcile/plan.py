"""The plan of a pass: `difference` makes the actions, `status` says how things stand; both read the same snapshot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.errors import BackendError, NotReadyError, WorkspaceError
from kaito_core.reconcile.actions import Action, Apply
from kaito_core.reconcile.desired import Desired
from kaito_core.reconcile.difference import difference
from kaito_core.reconcile.observed import Observed
from kaito_core.reconcile.status import Outlook, failure, outlook
from kaito_core.reconcile.transition import Event, next_status, strength_warnings

__all__ = ["Plan", "plan", "plan_failure"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    Attributes:
        actions: In order; each is idempotent, and the next pass takes up what a failure left.
        status: The status to write, if it differs from the Workspace's.
        events: Events to emit, once each.
        wake_after_seconds: When to look again if no change is seen before; None: never.
    """

    actions: tuple[Action, ...]
    status: dict[str, Any]
    events: tuple[Event, ...] = ()
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
    return _finish(workspace.status, workspace.generation, actions, current, now, events=strength_warnings(workspace))


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
    return Plan(actions, status, (*events, *changes), current.wake_after_seconds)
