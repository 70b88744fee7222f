"""The simulated scheduler and kubelet: which node a pod fits on, and its status. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kaito_core.api import matches

__all__ = ["PodFailure", "is_ready", "node_for", "pod_status"]

Object = dict[str, Any]

_IMAGE_REASONS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName")
_CONFIG_REASONS = ("CreateContainerConfigError",)
_MOUNT_REASONS = ("FailedMount",)


@dataclass(frozen=True, slots=True)
class PodFailure:
    """How pods fail.

    Attributes:
        reason: "ImagePullBackOff", "CreateContainerConfigError", "CrashLoopBackOff", "OOMKilled", "Evicted",
            "Unschedulable", "NotReady", "FailedMount" (its status shows nothing, its event is up to the test), or
            "FailedCreate" (the API server refuses the pod).
        labels: Labels of the pods that fail; all pods if empty.
        container: Container or init container that fails; the first container if empty.
        message: The words of the kubelet, the scheduler or the API server.
    """

    reason: str
    labels: Mapping[str, str] = field(default_factory=dict)
    container: str = ""
    message: str = ""

    def fits(self, pod: Object) -> bool:
        """Whether a pod fails."""
        return matches({"matchLabels": dict(self.labels)}, pod["metadata"].get("labels") or {})


def is_ready(obj: Object) -> bool:
    """Whether the condition Ready of a pod or node is true."""
    conditions = obj.get("status", {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def node_for(pod: Object, nodes: Sequence[Object], pods: Collection[Object]) -> tuple[str, str]:
    """The node that a pod fits on, or "" and why there is none, in the scheduler's words."""
    reasons: dict[str, int] = {}
    for node in nodes:
        why = _misfit(pod, node, pods)
        if not why:
            return node["metadata"]["name"], ""
        reasons[why] = reasons.get(why, 0) + 1
    words = ", ".join(f"{count} {why}" for why, count in sorted(reasons.items())) or "no nodes available"
    return "", f"0/{len(nodes)} nodes are available: {words}."


def _misfit(pod: Object, node: Object, pods: Collection[Object]) -> str:
    labels = node["metadata"].get("labels") or {}
    spec = pod["spec"]
    tolerations = spec.get("tolerations") or []
    if not is_ready(node) or node["spec"].get("unschedulable"):
        return "node(s) were not ready" if not is_ready(node) else "node(s) were unschedulable"
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(item, taint) for item in tolerations):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return "node(s) didn't match Pod's node affinity/selector"
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if affinity and not any(_term_fits(term, node) for term in affinity["nodeSelectorTerms"]):
        return "node(s) didn't match Pod's node affinity/selector"
    allocatable = node.get("status", {}).get("allocatable") or {}
    for resource, amount in _devices(pod).items():
        used = (other for other in pods if other["spec"].get("nodeName") == node["metadata"]["name"])
        taken = sum(_devices(other).get(resource, 0) for other in used)
        if int(allocatable.get(resource, 0)) - taken < amount:
            return f"Insufficient {resource}"
    return ""


def _term_fits(term: Object, node: Object) -> bool:
    """Whether a node fits a term of an affinity; an empty term fits no node."""
    fields = [
        {**field, "key": "name"} for field in term.get("matchFields") or () if field.get("key") == "metadata.name"
    ]
    if not term.get("matchExpressions") and not fields:
        return False
    labels = node["metadata"].get("labels") or {}
    asked = term.get("matchExpressions") or []
    numbers = [item for item in asked if item["operator"] in ("Gt", "Lt")]  # which label selectors do not have
    others = [item for item in asked if item not in numbers]
    return (
        matches({"matchExpressions": others}, labels)
        and all(_compares(item, labels.get(item["key"], "")) for item in numbers)
        and matches({"matchExpressions": fields}, {"name": node["metadata"]["name"]})
    )


def _compares(requirement: Object, value: str) -> bool:
    """Whether a label's value is a whole number on the right side of a requirement's."""
    if not value.isdigit():
        return False
    (bound,) = requirement["values"]
    return int(value) > int(bound) if requirement["operator"] == "Gt" else int(value) < int(bound)


def _devices(pod: Object) -> dict[str, int]:
    """The extended resources (GPUs) that a pod requests; CPU and memory are not simulated."""
    total: dict[str, int] = {}
    for container in pod["spec"]["containers"]:
        for name, amount in ((container.get("resources") or {}).get("limits") or {}).items():
            if "/" in name:
                total[name] = total.get(name, 0) + int(amount)
    return total


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))


def pod_status(pod: Object, now: str, failure: PodFailure | None, *, unschedulable: str, ready_node: bool) -> Object:
    """The status of a pod.

    Args:
        pod: The pod, with spec.nodeName if it is scheduled.
        now: Time of what changes.
        failure: How it fails, None if it does not.
        unschedulable: Why it has no node, "" if it has one.
        ready_node: Whether its node is ready.
    """
    if unschedulable:
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": unschedulable}
        return {"phase": "Pending", "conditions": _since(pod, [condition], now)}
    if failure is not None and failure.reason == "Unschedulable":
        failure = None  # it has a node
    if failure is not None and failure.reason == "Evicted":
        message = failure.message or "The node was low on resource: ephemeral-storage."
        return {"phase": "Failed", "reason": "Evicted", "message": message, "startTime": now}
    spec, started = pod["spec"], pod.get("status", {}).get("startTime", now)
    if failure is not None and failure.reason in _MOUNT_REASONS:
        conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]
        creating = [_waiting(container, "ContainerCreating") for container in spec["containers"]]
        pending = {"phase": "Pending", "startTime": started}
        return {**pending, "conditions": _since(pod, conditions, now), "containerStatuses": creating}
    broken = "" if failure is None else failure.container or spec["containers"][0]["name"]
    init_broken = any(container["name"] == broken for container in spec.get("initContainers") or ())
    init = [
        _container(container, now=started, done=True, failure=failure if container["name"] == broken else None)
        for container in spec.get("initContainers") or ()
    ]
    if init_broken:
        main = [_waiting(container, "PodInitializing") for container in spec["containers"]]
    else:
        main = [
            _container(container, now=started, done=False, failure=failure if container["name"] == broken else None)
            for container in spec["containers"]
        ]
    ephemeral = [
        _container(container, now=started, done=True, failure=failure if container["name"] == broken else None)
        for container in spec.get("ephemeralContainers") or ()
    ]
    contained = all(item["ready"] for item in main)
    ready = contained and ready_node
    pulled = not (failure is not None and failure.reason in (*_IMAGE_REASONS, *_CONFIG_REASONS))
    phase = "Pending" if init_broken or not pulled else "Running"
    holds = {
        "PodScheduled": True,
        "Initialized": not init_broken,
        "ContainersReady": contained,
        "Ready": ready,
    }
    conditions = [{"type": kind, "status": str(value)} for kind, value in holds.items()]
    status: Object = {
        "phase": phase,
        "startTime": started,
        "hostIP": "10.0.0.1",
        "podIP": "127.0.0.1",
        "podIPs": [{"ip": "127.0.0.1"}],
        "conditions": _since(pod, conditions, now),
        "containerStatuses": main,
    }
    status |= {"initContainerStatuses": init} if init else {}
    return status | ({"ephemeralContainerStatuses": ephemeral} if ephemeral else {})


def _since(pod: Object, conditions: Sequence[Object], now: str) -> list[Object]:
    """Conditions with the times of their last transitions."""
    old = {item["type"]: item for item in pod.get("status", {}).get("conditions") or ()}
    dated = []
    for item in conditions:
        before = old.get(item["type"], {})
        same = before.get("status") == item["status"]
        dated.append({**item, "lastTransitionTime": before.get("lastTransitionTime", now) if same else now})
    return dated


def _base(container: Object) -> Object:
    image = container.get("image", "")
    return {"name": container["name"], "image": image, "imageID": f"sim://{image}", "restartCount": 0}


def _waiting(container: Object, reason: str, message: str = "") -> Object:
    state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return {**_base(container), "ready": False, "started": False, "state": state, "lastState": {}}


def _ended(code: int, reason: str, now: str, message: str = "") -> Object:
    ended = {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}
    return {"terminated": ended | ({"message": message} if message else {})}


def _container(container: Object, *, now: str, done: bool, failure: PodFailure | None) -> Object:
    """The status of a container that runs or, if `done`, has ended."""
    if failure is None or failure.reason == "NotReady":
        state = _ended(0, "Completed", now) if done else {"running": {"startedAt": now}}
        ready = done or failure is None
        return {**_base(container), "ready": ready, "started": not done, "state": state, "lastState": {}}
    if failure.reason in _IMAGE_REASONS:
        message = failure.message or f'Back-off pulling image "{container.get("image", "")}"'
        return _waiting(container, failure.reason, message)
    if failure.reason in _CONFIG_REASONS:
        return _waiting(container, failure.reason, failure.message)
    if failure.reason == "OOMKilled":
        last = _ended(137, "OOMKilled", now, failure.message)
    else:
        last = _ended(1, "Error", now, failure.message)
    words = f"back-off 40s restarting failed container={container['name']}"
    crashed = _waiting(container, "CrashLoopBackOff", words)
    return {**crashed, "lastState": last, "restartCount": 3}
