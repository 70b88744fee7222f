"""How things stand with a Workspace: conditions, state and adapters. What is written of it is in `transition`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kaito_core.api import KubeObject, NodeState
from kaito_core.api.conditions import (
    INFERENCE_READY,
    NODE_CLAIM_READY,
    RESOURCE_READY,
    WORKSPACE_SUCCEEDED,
    Condition,
)
from kaito_core.api.serving import PORT
from kaito_core.api.strength import strength_text
from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.errors import BackendError, CapacityError, NamedObjectError, NotReadyError, WorkspaceError
from kaito_core.reconcile.desired import Desired
from kaito_core.reconcile.objects.manifests import STATEFUL_SETS
from kaito_core.reconcile.observed import Observed, is_ready, nodes_of
from kaito_core.reconcile.pod_problems import (
    UNSCHEDULABLE,
    creation_problem,
    fetch_problem,
    pod_problem,
    refusals,
    refused_pod,
    scheduling_words,
    start_problem,
)
from kaito_core.reconcile.resolve import ResolvedAdapter

__all__ = ["ANY_NODE", "NODES_IMPAIRED", "Outlook", "State", "failure", "outlook"]

State = Literal["Pending", "Ready", "NotReady", "Failed"]

_SETTLE_SECONDS = 2.0  # how often replicas are asked until they have applied their configuration
_RETRY_SECONDS = 30.0
_REREAD_SECONDS = 60.0  # how often a ConfigMap of the user's is read again; only labelled ones are watched
_SOONEST_SECONDS = 1.0
NODES_IMPAIRED = "NodesImpaired"  #: reason: the pods serve, on a node that would not be chosen any more
ANY_NODE = "any node will do"  #: message of ResourceReady where the Workspace asks for no particular nodes
#: Reason and message where no replica is asked for: as with a Deployment of none, nothing is missing.
_AT_ZERO = ("ScaledToZero", "no replica is asked for (spec.replicas or resource.count is 0), so none serves")


@dataclass(frozen=True, slots=True)
class Outlook:
    """How things stand with a Workspace.

    Attributes:
        conditions: The observations; the last one sums them up.
        state: The summary in one word.
        nodes: Names of the nodes that the pods are on; None: unknown, the status keeps the previous ones.
        adapters: What is applied, per adapter; None: unknown, likewise.
        notes: What the node provider notes; None: unknown, likewise.
        endpoint: URL inside the cluster; "": unknown, likewise.
        replicas: Number of pods; None: unknown, likewise.
        selector: Label selector of the pods; "": unknown, likewise.
        unused: What the Workspace says that has no effect; None: unknown, likewise.
        wake_after_seconds: When to look again if no change is seen before; None: never.
    """

    conditions: tuple[Condition, ...]
    state: State
    nodes: tuple[str, ...] | None = None
    adapters: tuple[dict[str, Any], ...] | None = None
    notes: Mapping[str, str] | None = None
    endpoint: str = ""
    replicas: int | None = None
    selector: str = ""
    unused: tuple[str, ...] | None = None
    wake_after_seconds: float | None = None


def _nodes_condition(nodes: NodeState, observed: Observed, count: int) -> Condition:
    """Returns whether there are nodes: those that serve, whatever is wrong with them, or else those that could."""
    used = nodes_of(observed.pods)
    if not count:
        return Condition(RESOURCE_READY, "True", *_AT_ZERO)
    if sum(map(is_ready, observed.pods)) >= count and used:
        names = ", ".join(used)
        troubles = [f"{node.name} {node.reason}" for node in nodes.rejected if node.name in used]
        if troubles:
            message = f"nodes: {names}; {'; '.join(troubles)}. The pods on it are left alone"
            return Condition(RESOURCE_READY, "True", NODES_IMPAIRED, message)
        return Condition(RESOURCE_READY, "True", "NodesReady", f"nodes: {names}")
    if nodes.pods_first:
        return _scheduled(nodes, observed, count)
    if not nodes.reason:
        names = ", ".join(used or nodes.ready[:count])
        return Condition(RESOURCE_READY, "True", "NodesReady", f"nodes: {names}" if names else ANY_NODE)
    rejected = "; ".join(f"{node.name}: {node.reason}" for node in nodes.rejected if node.name not in nodes.message)
    message = f"{nodes.message} ({rejected})" if rejected else nodes.message
    return Condition(RESOURCE_READY, "False" if nodes.failed else "Unknown", nodes.reason, message)


def _scheduled(nodes: NodeState, observed: Observed, count: int) -> Condition:
    """Returns whether the pods have nodes, which come for pods that wait; what is missing then is no failure yet."""
    living = [pod for pod in observed.pods if not _has_ended(pod)]
    waiting = [pod for pod in living if not pod.get("spec", {}).get("nodeName")]
    if len(living) >= count and not waiting:
        return Condition(RESOURCE_READY, "True", "NodesReady", f"nodes: {', '.join(nodes_of(living))}")
    words = next(filter(None, (scheduling_words(pod, observed.events) for pod in waiting)), "")
    placed = f"{len(living) - len(waiting)} of {count} pods have a node"
    message = "; ".join(filter(None, (f"{placed}, {nodes.message}", words)))
    return Condition(RESOURCE_READY, "Unknown", nodes.reason, message)


def _rolled_out(live: KubeObject | None) -> tuple[int, int, bool]:
    """Returns a workload's ready pods, wanted pods, and whether all pods have its current template."""
    if live is None:
        return 0, 0, False
    spec, status = live.get("spec", {}), live.get("status", {})
    current = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    wanted = spec.get("replicas", 1)
    return status.get("readyReplicas", 0), wanted, current and status.get("updatedReplicas", 0) >= wanted


def _inference_condition(live: KubeObject | None, observed: Observed, changing: bool, pods_first: bool) -> Condition:
    ready, wanted, current = _rolled_out(live)
    ready = min(ready, sum(map(is_ready, observed.pods)))  # the two are watched apart, and either may be older
    if live is None:
        return Condition(INFERENCE_READY, "Unknown", "WorkloadPending", "the workload does not exist yet")
    if not wanted and current and not changing:
        return Condition(INFERENCE_READY, "True", *_AT_ZERO)
    if wanted and ready >= wanted and current and not changing:
        return Condition(INFERENCE_READY, "True", "InferenceReady", f"{ready} of {wanted} pods serve requests")
    # Evicted pods remain after others have taken their place: the problems of living pods come first.
    unready = sorted((pod for pod in observed.pods if not is_ready(pod)), key=_has_ended)
    events = observed.events
    found = [problem for pod in unready if (problem := pod_problem(pod) or start_problem(pod, events))]
    # Where nodes come for pods that wait, a pod has to wait.
    problems = [problem for problem in found if not (pods_first and problem.reason == UNSCHEDULABLE)]
    if refused := creation_problem(live):
        problems.append(refused)
    elif len(observed.pods) < wanted:
        problems += [refused_pod(words) for words in refusals(live, events)[:1]]
    counted = f"{ready} of {wanted} pods serve requests"
    if problems:
        return Condition(INFERENCE_READY, "False", problems[0].reason, f"{counted}; {problems[0].message}")
    return Condition(INFERENCE_READY, "Unknown", "InferencePending", f"{counted}; {_progress(observed)}")


def _is_distributed(desired: Desired) -> bool:
    return bool(desired.workload["kind"] == STATEFUL_SETS.kind)


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


def _adapter_rows(desired: Desired, observed: Observed) -> tuple[dict[str, Any], ...]:
    """Returns for each adapter what all replicas agree on; nothing is claimed that no replica has reported."""
    serving = [pod["metadata"]["name"] for pod in observed.pods if is_ready(pod)]
    if _is_distributed(desired):  # the first pod serves, and reports for the others
        serving = [name for name in serving if name == f"{desired.workspace.name}-0"]
    reports = [
        observed.reports[pod]
        for pod in serving
        # In an earlier configuration the names may stand for other files.
        if pod in observed.reports and observed.reports[pod].generation == desired.workspace.generation
    ]
    silent = [name for name in serving if name not in observed.reports]
    return tuple(
        _adapter_row(entry, [row for report in reports for row in report.adapters], len(serving), observed, silent)
        for entry in desired.adapters
    )


def _adapter_row(
    entry: ResolvedAdapter,
    rows: Iterable[Mapping[str, Any]],
    replicas: int,
    observed: Observed,
    silent: Sequence[str],
) -> dict[str, Any]:
    adapter = entry.adapter
    reported = [row for row in rows if row.get("name") == adapter.name]
    failed = next((row for row in reported if row.get("state") == "Failed"), None)
    applied = sum(row.get("state") == "Ready" and row.get("strength") == adapter.strength for row in reported)
    state, message = "Loading", f"{applied} of {replicas} replicas have applied it"
    if silent:
        message += (
            f"; pod '{silent[0]}' serves, but does not answer the operator on port {PORT}: let it in where a "
            "NetworkPolicy or a service mesh keeps it out"
        )
    if failed is not None:
        state, message = "Failed", str(failed.get("message", ""))
    elif replicas and applied == replicas:
        state, message = "Ready", ""
    elif problem := _fetch_problem(observed, entry.ref.folder):
        state, message = "Failed", problem
    return {
        "name": adapter.name,
        "strength": strength_text(adapter.strength),
        "digest": next((str(row["digest"]) for row in reported if row.get("digest")), adapter.digest or ""),
        "state": state,
        "message": message,
        "replicas": applied,
    }


def _fetch_problem(observed: Observed, folder: str) -> str:
    problems = (fetch_problem(pod, folder) for pod in observed.pods if is_ready(pod))
    return next((problem.message for problem in problems if problem is not None), "")


def outlook(desired: Desired, observed: Observed, *, changing: bool) -> Outlook:
    """Returns how things stand with a Workspace that can be served; `changing`: its workload is being applied."""
    workspace, nodes = desired.workspace, desired.nodes
    live = observed.child(desired.workload["kind"], workspace.name)
    resource = _nodes_condition(nodes, observed, desired.replicas)
    inference = _inference_condition(live, observed, changing, nodes.pods_first)
    adapters = _adapter_rows(desired, observed)
    parts = [resource, inference]
    if nodes.created or nodes.failed:  # a refused claim is gone, and its refusal is still what there is to say
        parts.append(Condition(NODE_CLAIM_READY, resource.status, resource.reason, resource.message))
    state, summary = _summary(parts, adapters)
    unsettled = inference.status == "True" and any(row["state"] == "Loading" for row in adapters)
    wakes = [_SETTLE_SECONDS] if unsettled else [] if state == "Ready" else [_RETRY_SECONDS]
    if desired.workspace.inference.config or desired.workspace.inference.weights is not None:
        wakes.append(_REREAD_SECONDS)
    if nodes.wake_after_seconds is not None:
        wakes.append(max(nodes.wake_after_seconds, _SOONEST_SECONDS))
    return Outlook(
        conditions=(*parts, summary),
        state=state,
        nodes=nodes_of(observed.pods),
        adapters=adapters,
        notes=nodes.notes,
        endpoint=f"http://{workspace.name}.{workspace.namespace}.svc.cluster.local/v1",
        replicas=sum(not _has_ended(pod) for pod in observed.pods),
        selector=f"{WORKSPACE_LABEL}={workspace.name}",
        unused=desired.unused,
        wake_after_seconds=min(wakes, default=None),
    )


def _summary(parts: Sequence[Condition], adapters: Sequence[Mapping[str, Any]]) -> tuple[State, Condition]:
    """Returns the state, and the condition that sums up the others: the worst part, in its own words."""
    ranking: tuple[tuple[str, State], ...] = (("False", "NotReady"), ("Unknown", "Pending"))
    for status, state in ranking:
        for part in parts:
            if part.status == status:
                return state, replace(part, type=WORKSPACE_SUCCEEDED)
    for row in adapters:
        if row["state"] == "Failed":
            message = f"adapter '{row['name']}' failed to load: {row['message']}"
            return "NotReady", Condition(WORKSPACE_SUCCEEDED, "False", "AdapterFailed", message)
    if zero := next((part for part in parts if part.reason == _AT_ZERO[0]), None):
        return "Ready", replace(zero, type=WORKSPACE_SUCCEEDED)
    return "Ready", Condition(WORKSPACE_SUCCEEDED, "True", "WorkspaceSucceeded", "the model answers requests")


def failure(error: WorkspaceError | NotReadyError | BackendError) -> Outlook:
    """Returns how things stand after a pass that ended in an error."""
    if isinstance(error, NamedObjectError):
        summary = Condition(WORKSPACE_SUCCEEDED, "False", error.reason, f"{error}; {error.advice}")
        return Outlook((summary,), "Failed", wake_after_seconds=_REREAD_SECONDS)
    if isinstance(error, WorkspaceError):
        # Only an edit helps, and an edit starts a pass: no retry.
        summary = Condition(WORKSPACE_SUCCEEDED, "False", error.reason, f"{error}; edit the Workspace")
        return Outlook((summary,), "Failed")
    if isinstance(error, NotReadyError):
        summary = Condition(WORKSPACE_SUCCEEDED, "False", error.reason, str(error))
        return Outlook((summary,), "NotReady", wake_after_seconds=error.retry_after_seconds)
    if isinstance(error, CapacityError):  # as of a provider that returns a failed state
        message = f"{error}; it is tried again"
        named = (RESOURCE_READY, NODE_CLAIM_READY, WORKSPACE_SUCCEEDED)
        conditions = tuple(Condition(name, "False", error.reason, message) for name in named)
        return Outlook(conditions, "NotReady", wake_after_seconds=_RETRY_SECONDS)
    summary = Condition(WORKSPACE_SUCCEEDED, "Unknown", error.reason, f"{error}; it is tried again")
    return Outlook((summary,), "NotReady", wake_after_seconds=_RETRY_SECONDS)
