"""What to say about a Workspace: conditions, state, adapters, and the events that changes of them are worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from kaito_core.api import KubeObject, NodeState, Workspace
from kaito_core.api.conditions import (
    INFERENCE_READY,
    NODE_CLAIM_READY,
    RESOURCE_READY,
    WORKSPACE_SUCCEEDED,
    Condition,
    merge_conditions,
)
from kaito_core.errors import BackendError, NotReadyError, WorkspaceError
from kaito_core.reconcile.observed import (
    Observed,
    creation_problem,
    fetch_problem,
    is_ready,
    pod_problem,
    refusals,
    refused_pod,
    start_problem,
)
from kaito_core.reconcile.resolve import Resolved

__all__ = ["Event", "Outlook", "State", "failure", "in_words", "is_news", "outlook", "strength_warnings", "write"]

State = Literal["Pending", "Ready", "NotReady", "Failed"]

_SETTLE_SECONDS = 2.0  # replicas are asked this often while they have not applied what they should
_RETRY_SECONDS = 30.0
_ANY_NODE = "any node will do"


@dataclass(frozen=True, slots=True)
class Event:
    """An event to emit. Attributes: type: "Normal" or "Warning". reason: CamelCase. message: In words."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is to be said.

    Attributes:
        conditions: The observations.
        state: Their summary in a word.
        nodes: Names of the nodes that serve it; None: unknown, say what was said before.
        adapters: What is applied, per adapter; None: unknown.
        endpoint: URL inside the cluster, "" before there is one.
        wake_after_seconds: When to look again if nothing happens first.
    """

    conditions: tuple[Condition, ...]
    state: State
    nodes: tuple[str, ...] | None = None
    adapters: tuple[dict[str, Any], ...] | None = None
    endpoint: str = ""
    wake_after_seconds: float | None = None


def _nodes_condition(nodes: NodeState, count: int) -> Condition:
    if not nodes.reason:
        names = ", ".join(nodes.ready[:count])
        return Condition(RESOURCE_READY, "True", "NodesReady", f"nodes: {names}" if names else _ANY_NODE)
    rejected = "; ".join(f"{node.name}: {node.reason}" for node in nodes.rejected if node.name not in nodes.message)
    message = f"{nodes.message} ({rejected})" if rejected else nodes.message
    return Condition(RESOURCE_READY, "False" if nodes.failed else "Unknown", nodes.reason, message)


def _rolled_out(live: KubeObject | None) -> tuple[int, int, bool]:
    """Returns a workload's ready pods, wanted pods, and whether its controller has seen its newest form."""
    if live is None:
        return 0, 0, False
    spec, status = live.get("spec", {}), live.get("status", {})
    current = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    wanted = spec.get("replicas", 1)
    return status.get("readyReplicas", 0), wanted, current and status.get("updatedReplicas", 0) >= wanted


def _inference_condition(live: KubeObject | None, observed: Observed, changing: bool) -> Condition:
    ready, wanted, current = _rolled_out(live)
    ready = min(ready, sum(map(is_ready, observed.pods)))  # news of the two comes by different ways, in any order
    if live is None:
        return Condition(INFERENCE_READY, "Unknown", "WorkloadPending", "the workload does not exist yet")
    if wanted and ready >= wanted and current and not changing:
        return Condition(INFERENCE_READY, "True", "InferenceReady", f"{ready} of {wanted} pods serve requests")
    # An evicted pod is left lying about when another has long taken its place: what lives says first what is wrong.
    unready = sorted((pod for pod in observed.pods if not is_ready(pod)), key=_has_ended)
    events = observed.events
    problems = [problem for pod in unready if (problem := pod_problem(pod) or start_problem(pod, events))]
    if refused := creation_problem(live):
        problems.append(refused)
    elif len(observed.pods) < wanted:
        problems += [refused_pod(words) for words in refusals(live, events)[:1]]
    counted = f"{ready} of {wanted} pods serve requests"
    if problems:
        return Condition(INFERENCE_READY, "False", problems[0].reason, f"{counted}; {problems[0].message}")
    return Condition(INFERENCE_READY, "Unknown", "InferencePending", f"{counted}; {_progress(observed)}")


def _has_ended(pod: KubeObject) -> bool:
    return pod.get("status", {}).get("phase") in ("Failed", "Succeeded")


def _progress(observed: Observed) -> str:
    """Returns what the pods that are not ready are doing."""
    for pod in observed.pods:
        statuses = pod.get("status", {})
        for container in statuses.get("initContainerStatuses", []):
            if "running" in container.get("state", {}):
                return f"pod '{pod['metadata']['name']}' runs its step '{container.get('name')}'"
        if not is_ready(pod):
            return f"pod '{pod['metadata']['name']}' is {statuses.get('phase', 'Pending').lower()}"
    return "no pod exists yet"


def _adapters(resolved: Resolved, observed: Observed) -> tuple[dict[str, Any], ...]:
    """Returns for each adapter what all replicas agree on; a claim is made only on what a replica said."""
    serving = [pod["metadata"]["name"] for pod in observed.pods if is_ready(pod)]
    if resolved.preset is not None and resolved.preset.distributed:  # the first pod serves, and speaks for the others
        serving = [name for name in serving if name == f"{resolved.workspace.name}-0"]
    rows = []
    for index, adapter in enumerate(resolved.workspace.inference.adapters):
        said = [
            row
            for pod in serving
            if (report := observed.reports.get(pod)) is not None
            # The names may stand for other files in the configuration of before.
            and report.generation == resolved.workspace.generation
            for row in report.adapters
            if row.get("name") == adapter.name
        ]
        failed = next((row for row in said if row.get("state") == "Failed"), None)
        applied = [row for row in said if row.get("state") == "Ready" and row.get("strength") == adapter.strength]
        state, message = "Loading", f"{len(applied)} of {len(serving)} replicas have applied it"
        if failed is not None:
            state, message = "Failed", str(failed.get("message", ""))
        elif serving and len(applied) == len(serving):
            state, message = "Ready", ""
        elif problem := _fetch_problem(observed, adapter.ref(index).folder):
            state, message = "Failed", problem
        digest = next((str(row["digest"]) for row in said if row.get("digest")), adapter.digest or "")
        rows.append(
            {
                "name": adapter.name,
                "strength": f"{adapter.strength:g}",
                "digest": digest,
                "state": state,
                "message": message,
                "replicas": len(applied),
            }
        )
    return tuple(rows)


def _fetch_problem(observed: Observed, folder: str) -> str:
    problems = (fetch_problem(pod, folder) for pod in observed.pods if is_ready(pod))
    return next((problem.message for problem in problems if problem is not None), "")


def outlook(resolved: Resolved, nodes: NodeState, observed: Observed, *, changing: bool) -> Outlook:
    """Returns what to say about a Workspace that can be served; `changing` is whether something is being applied."""
    workspace = resolved.workspace
    kind = "StatefulSet" if resolved.preset is not None and resolved.preset.distributed else "Deployment"
    resource = _nodes_condition(nodes, workspace.resource.count)
    inference = _inference_condition(observed.child(kind, workspace.name), observed, changing)
    adapters = _adapters(resolved, observed)
    parts = [resource, inference]
    if nodes.created or nodes.failed:  # a refused claim is gone, and its refusal is still what there is to say
        parts.append(Condition(NODE_CLAIM_READY, resource.status, resource.reason, resource.message))
    failed = next((row for row in adapters if row["state"] == "Failed"), None)
    bad = next((part for part in parts if part.status == "False"), None)
    slow = next((part for part in parts if part.status == "Unknown"), None)
    summary = Condition(WORKSPACE_SUCCEEDED, "True", "WorkspaceSucceeded", "the model answers requests")
    state: State = "Ready"
    if bad is not None or slow is not None:
        part = bad or slow
        assert part is not None
        summary = Condition(WORKSPACE_SUCCEEDED, part.status, part.reason, part.message)
        state = "NotReady" if bad is not None else "Pending"
    elif failed is not None:
        message = f"adapter '{failed['name']}' is not served: {failed['message']}"
        summary = Condition(WORKSPACE_SUCCEEDED, "False", "AdapterFailed", message)
        state = "NotReady"
    unsettled = inference.status == "True" and any(row["state"] == "Loading" for row in adapters)
    return Outlook(
        conditions=(*parts, summary),
        state=state,
        nodes=nodes.ready[: workspace.resource.count],
        adapters=adapters,
        endpoint=f"http://{workspace.name}.{workspace.namespace}.svc.cluster.local/v1",
        wake_after_seconds=_SETTLE_SECONDS if unsettled else None if state == "Ready" else _RETRY_SECONDS,
    )


def strength_warnings(workspace: Workspace) -> tuple[Event, ...]:
    """Returns one event, once per generation, for strengths that KAITO would refuse."""
    if workspace.status.get("observedGeneration") == workspace.generation:
        return ()
    unusual = [a for a in workspace.inference.adapters if not 0 <= a.strength <= 1]
    if not unusual:
        return ()
    listed = ", ".join(f"'{adapter.name}' ({adapter.strength:g})" for adapter in unusual)
    return (Event("Warning", "StrengthOutsideUnitRange", f"strengths outside 0 to 1 are applied as written: {listed}"),)


def failure(error: WorkspaceError | NotReadyError | BackendError) -> Outlook:
    """Returns what to say about a pass that ended in an error."""
    if isinstance(error, WorkspaceError):
        # Only an edit helps, and an edit is an event: no retry.
        summary = Condition(WORKSPACE_SUCCEEDED, "False", error.reason, f"{error}; edit the Workspace")
        return Outlook((summary,), "Failed")
    if isinstance(error, NotReadyError):
        summary = Condition(WORKSPACE_SUCCEEDED, "False", error.reason, str(error))
        return Outlook((summary,), "NotReady", wake_after_seconds=error.retry_after_seconds)
    summary = Condition(WORKSPACE_SUCCEEDED, "Unknown", error.reason, f"{error}; it is tried again")
    return Outlook((summary,), "NotReady", wake_after_seconds=_RETRY_SECONDS)


def write(
    previous: Mapping[str, Any], generation: int, outlook: Outlook, now: datetime
) -> tuple[dict[str, Any], tuple[Event, ...]]:
    """Returns the status to write, and the events that its differences from the previous one are worth.

    Args:
        previous: The status that the Workspace has.
        generation: Its metadata.generation.
        outlook: What is to be said.
        now: For transition times.
    """
    before = [condition for condition in previous.get("conditions") or [] if isinstance(condition, Mapping)]
    ours = {RESOURCE_READY, NODE_CLAIM_READY, INFERENCE_READY, WORKSPACE_SUCCEEDED}
    said = {condition.type for condition in outlook.conditions}
    conditions = merge_conditions([dict(c) for c in before], outlook.conditions, generation=generation, now=now)
    # A pass that ended early says nothing new about the parts: what was observed last stays.
    conditions += [dict(c) for c in before if c.get("type") in ours - said and len(said) == 1]
    status: dict[str, Any] = {
        "conditions": sorted(conditions, key=lambda condition: str(condition["type"])),
        "state": outlook.state,
        "observedGeneration": generation,
    }
    for key, value in (
        ("workerNodes", None if outlook.nodes is None else list(outlook.nodes)),
        ("adapters", None if outlook.adapters is None else list(outlook.adapters)),
        ("endpoint", outlook.endpoint or None),
    ):
        kept = previous.get(key) if value is None else value
        if kept is not None:
            status[key] = kept
    return status, _events(before, outlook.conditions)


def in_words(status: Mapping[str, Any]) -> str:
    """Returns a status in words: what its condition WorkspaceSucceeded says."""
    said = (condition["message"] for condition in status["conditions"] if condition["type"] == WORKSPACE_SUCCEEDED)
    return str(next(said, ""))


def is_news(previous: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Returns whether a status says anything that the previous one did not; foreign conditions do not count."""
    ours = {RESOURCE_READY, NODE_CLAIM_READY, INFERENCE_READY, WORKSPACE_SUCCEEDED}
    before = [condition for condition in previous.get("conditions") or [] if condition.get("type") in ours]
    now = {condition["type"]: condition for condition in status["conditions"]}
    if {condition["type"]: condition for condition in before} != now:
        return True
    return any(previous.get(key) != value for key, value in status.items() if key != "conditions")


def _events(before: Sequence[Mapping[str, Any]], current: Sequence[Condition]) -> tuple[Event, ...]:
    """Returns one event for each condition that became another one, the summary only where no part says the same."""
    old = {condition.get("type"): condition for condition in before}
    events: list[Event] = []
    for condition in current:
        then = old.get(condition.type, {})
        if (then.get("status"), then.get("reason")) == (condition.status, condition.reason):
            continue
        if condition.message == _ANY_NODE and not then:
            continue  # no node was asked for, so none has become ready
        if any(event.reason == condition.reason for event in events) or condition.reason.endswith("Pending"):
            continue
        # A summary that is Unknown for a reason of its own is a pass that failed; parts are Unknown while they wait.
        failed = condition.status == "Unknown" and condition.type == WORKSPACE_SUCCEEDED
        kind: Literal["Normal", "Warning"] = "Warning" if failed or condition.status == "False" else "Normal"
        events.append(Event(kind, condition.reason, condition.message))
    return tuple(events)
