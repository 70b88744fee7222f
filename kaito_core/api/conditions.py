"""Conditions: observations of a Workspace, each with a reason for programs and a message for people.

Source: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

__all__ = [
    "INFERENCE_READY",
    "NODE_CLAIM_READY",
    "READY",
    "RESOURCE_READY",
    "WORKSPACE_SUCCEEDED",
    "Condition",
    "ConditionStatus",
    "merge_conditions",
    "timestamp",
]

#: Upstream's names, so that tools which wait for them keep working.
RESOURCE_READY = "ResourceReady"
NODE_CLAIM_READY = "NodeClaimReady"
INFERENCE_READY = "InferenceReady"
WORKSPACE_SUCCEEDED = "WorkspaceSucceeded"
#: The name that tools look for which know nothing of a Workspace (kstatus in Flux, Helm and kapp). Same as the summary.
READY = "Ready"

ConditionStatus = Literal["True", "False", "Unknown"]

_MESSAGE_LIMIT = 1024  # characters; the API allows 32768, a terminal does not


def timestamp(now: datetime) -> str:
    """Returns a time as the Kubernetes API writes it: UTC, whole seconds, "Z"."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Condition:
    """One observation.

    Attributes:
        type: Name of what is observed, such as "InferenceReady".
        status: "True", "False" for a known bad state, "Unknown" while in progress or not observable.
        reason: Category of the cause, one CamelCase word.
        message: The cause in words, and the next step.
        last_transition_time: When `status` last changed, as the API writes times; "" until it is written.
        observed_generation: Generation of the object that was observed.
    """

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the condition as the API writes it."""
        return {
            "type": self.type,
            "status": self.status,
            "reason": self.reason,
            "message": self.message[:_MESSAGE_LIMIT],
            "lastTransitionTime": self.last_transition_time,
            "observedGeneration": self.observed_generation,
        }


def merge_conditions(
    previous: Iterable[dict[str, Any]], current: Sequence[Condition], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Returns the conditions to write: `current`, where conditions of an unchanged status keep their transition time.

    Conditions of other types belong to others and are left out: server-side apply merges the list by type.

    Args:
        previous: The conditions that the object has.
        current: The conditions that were observed now.
        generation: metadata.generation of what was observed.
        now: For transition times.
    """
    before = {condition.get("type"): condition for condition in previous}
    merged = []
    for condition in current:
        old = before.get(condition.type)
        unchanged = old is not None and old.get("status") == condition.status and old.get("lastTransitionTime")
        since = str(old["lastTransitionTime"]) if old is not None and unchanged else timestamp(now)
        merged.append(replace(condition, last_transition_time=since, observed_generation=generation).to_dict())
    return merged
