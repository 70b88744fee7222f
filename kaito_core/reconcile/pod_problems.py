"""Why a pod is not ready, in the cluster's own words: from its status, its workload's status, and events."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.reconcile.objects.podspec import ADAPTER_VARIABLE

__all__ = [
    "UNSCHEDULABLE",
    "PodProblem",
    "adapters_that_block",
    "creation_problem",
    "fetch_problem",
    "is_stuck",
    "pod_problem",
    "refusals",
    "refused_pod",
    "scheduling_words",
    "start_problem",
]

UNSCHEDULABLE = "Unschedulable"  #: reason: no node takes the pod
_PULL_ERRORS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ImageInspectError", "ErrImageNeverPull")
_START_ERRORS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")
#: Reasons of a kubelet's events about a pod whose containers it cannot start.
_BEFORE_CONTAINERS = (
    "FailedMount",
    "FailedAttachVolume",
    "FailedMapVolume",
    "FailedCreatePodSandBox",
    "NetworkNotReady",
)
#: Reasons of events with which cluster-autoscaler and Karpenter say what they do for a pod that has no node.
_AUTOSCALING = ("NotTriggerScaleUp", "TriggeredScaleUp", "Nominated", "FailedScheduling")
_SCHEDULER = "default-scheduler"
_PATIENCE_SECONDS = 10.0
_SHELL_WORDS = ("no such file", "not found", "not executable")
_FORBIDDEN_POD = re.compile(r'^.*?pods? "?[^" ]+"? is forbidden: ')
_MOST_WORDS = 400  # characters of a log's end: enough for its last error


@dataclass(frozen=True, slots=True)
class PodProblem:
    """Why a pod is not ready.

    Attributes:
        reason: CamelCase category, as upstream names it.
        message: The cause in the cluster's own words, with the pod's and container's name.
    """

    reason: str
    message: str


def _last_words(text: str) -> str:
    """Returns the end of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_WORDS else f"... {line[-_MOST_WORDS:]}"


def _secrets(pod: KubeObject, container: str) -> str:
    """Returns the keys of Secrets that a container reads, in words."""
    spec = pod.get("spec", {})
    found = [
        f"key {reference.get('key')} of Secret '{reference.get('name')}'"
        for kind in ("initContainers", "containers", "ephemeralContainers")
        for item in spec.get(kind, [])
        if item.get("name") == container
        for variable in item.get("env", [])
        if (reference := variable.get("valueFrom", {}).get("secretKeyRef"))
    ]
    return f" (its token is the {', '.join(found)})" if found else ""


def _shell_advice(text: str) -> str:
    if "/bin/sh" in text and any(word in text for word in _SHELL_WORDS):
        return "; the image must have /bin/sh and cp, as busybox has, and an adapter's its files in /data"
    return ""


def _container_problem(whole: KubeObject, status: Mapping[str, Any]) -> PodProblem | None:
    pod = whole["metadata"]["name"]
    name = f"container '{status.get('name')}' of pod '{pod}'"
    state = status.get("state", {})
    waiting, last = state.get("waiting") or {}, status.get("lastState", {}).get("terminated") or {}
    ended = state.get("terminated") or {}
    if waiting.get("reason") in _PULL_ERRORS:
        text = waiting.get("message") or waiting["reason"]
        return PodProblem("ImagePullError", f"{name}: {text}; check the image's name and its pull secret")
    for end in (ended, last):
        if end.get("reason") == "OOMKilled":
            return PodProblem("ContainerOOMKilled", f"{name} ran out of memory; use machines with more memory")
    if waiting.get("reason") in _START_ERRORS:
        text = waiting.get("message") or waiting["reason"]
        words = f"{_secrets(whole, str(status.get('name')))}{_shell_advice(text)}"
        return PodProblem("ContainerStartError", f"{name}: {text}{words}")
    failure = last if waiting.get("reason") == "CrashLoopBackOff" else ended
    if waiting.get("reason") == "CrashLoopBackOff" or ended.get("exitCode"):
        text = str(failure.get("message") or f"exit status {failure.get('exitCode', 'unknown')}")
        words = _last_words(text) + _secrets(whole, str(status.get("name"))) + _shell_advice(text)
        return PodProblem(
            "ContainerCrashLoopBackOff", f"{name} fails: {words}; see kubectl logs {pod} -c {status.get('name')}"
        )
    return None


def pod_problem(pod: KubeObject) -> PodProblem | None:
    """Returns why a pod is not ready, or None for one that is ready or is starting."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if status.get("reason") == "Evicted":
        return PodProblem("PodEvicted", f"pod '{name}' was evicted: {status.get('message', '')}".rstrip(": "))
    if status.get("phase") == "Failed" and status.get("reason"):  # the kubelet has not started any container
        words = f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
        return PodProblem("PodFailed", f"pod '{name}' was refused by its node: {words}")
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == UNSCHEDULABLE:
            return PodProblem(UNSCHEDULABLE, f"pod '{name}': {condition.get('message', 'no node fits')}")
    statuses: Sequence[Mapping[str, Any]] = [
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ]
    problems = (_container_problem(pod, container) for container in statuses)
    return next((problem for problem in problems if problem is not None), None)


def adapters_that_block(pod: KubeObject) -> set[str]:
    """Returns the folders ("name/revision") of adapters whose init containers fail, so that the pod does not start."""
    folders = {
        container.get("name"): str(variable.get("value"))
        for container in pod.get("spec", {}).get("initContainers", [])
        for variable in container.get("env", [])
        if variable.get("name") == ADAPTER_VARIABLE
    }
    statuses = pod.get("status", {}).get("initContainerStatuses", [])
    return {
        folders[status["name"]]
        for status in statuses
        if status.get("name") in folders and _container_problem(pod, status) is not None
    }


def is_stuck(pod: KubeObject, now: datetime) -> bool:
    """Returns whether a pod's kubelet had time to start a container, did not, and gives no reason in the status."""
    status = pod.get("status", {})
    if status.get("phase") != "Pending" or not status.get("startTime") or pod_problem(pod) is not None:
        return False
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    begun = any("waiting" not in item.get("state", {}) for item in containers)
    since = datetime.fromisoformat(status["startTime"])
    return not begun and (now - since).total_seconds() >= _PATIENCE_SECONDS


def start_problem(pod: KubeObject, events: Iterable[KubeObject]) -> PodProblem | None:
    """Returns why the kubelet does not start a pod's containers, which only events show, or None."""
    for reason, words in _events_about(pod, events, _BEFORE_CONTAINERS):
        return PodProblem("PodStartError", f"pod '{pod['metadata']['name']}' cannot start: {reason}: {words}")
    return None


def scheduling_words(pod: KubeObject, events: Iterable[KubeObject]) -> str:
    """Returns what the scheduler and an autoscaler say of a pod that has no node, "" where neither says anything."""
    conditions = pod.get("status", {}).get("conditions", [])
    said = [str(found.get("message", "")) for found in conditions if found.get("type") == "PodScheduled"][:1]
    others = [event for event in events if _component(event) != _SCHEDULER]  # its words are the condition's
    for reason, words in _events_about(pod, others, _AUTOSCALING):
        said.append(f"the autoscaler says {reason}: {words}")
        break
    name = pod["metadata"]["name"]
    return f"pod '{name}': {'; '.join(filter(None, said))}" if any(said) else ""


def _component(event: KubeObject) -> str:
    return str((event.get("source") or {}).get("component") or event.get("reportingComponent") or "")


def creation_problem(workload: KubeObject) -> PodProblem | None:
    """Returns why pods of a Deployment cannot be created, in the API server's words, or None."""
    for condition in workload.get("status", {}).get("conditions", []):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return refused_pod(str(condition.get("message", "")))
    return None


def refused_pod(words: str) -> PodProblem:
    """Returns a refusal of the API server as a problem, without the pod's name, which is new with each attempt."""
    words = _FORBIDDEN_POD.sub("", words)
    if "exceeded quota" in words:
        return PodProblem(
            "QuotaExceeded",
            f"{words}; raise the ResourceQuota of the namespace (kubectl describe quota), or free what it counts",
        )
    return PodProblem("FailedCreate", f"the API server refuses the pods: {words}")


def refusals(workload: KubeObject, events: Iterable[KubeObject]) -> tuple[str, ...]:
    """Returns the API server's refusals of a StatefulSet's pods, the newest first."""
    return tuple(words for _, words in _events_about(workload, events, ("FailedCreate",)))


def _events_about(about: KubeObject, events: Iterable[KubeObject], reasons: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the reasons and messages of events about an object, the newest first."""
    uid = about["metadata"].get("uid")
    found = [
        (
            str(event.get("lastTimestamp") or event.get("eventTime") or ""),
            event["reason"],
            str(event.get("message", "")),
        )
        for event in events
        if event.get("reason") in reasons and (event.get("involvedObject") or {}).get("uid") == uid
    ]
    return [(reason, words) for _, reason, words in sorted(found, reverse=True)]


def fetch_problem(pod: KubeObject, folder: str) -> PodProblem | None:
    """Returns why an adapter's container that was added to a running pod has failed, or None."""
    names = [
        container["name"]
        for container in pod.get("spec", {}).get("ephemeralContainers", [])
        if {"name": ADAPTER_VARIABLE, "value": folder} in container.get("env", [])
    ]
    statuses = pod.get("status", {}).get("ephemeralContainerStatuses", [])
    problems = (_container_problem(pod, status) for status in statuses if status["name"] in names)
    return next((problem for problem in problems if problem is not None), None)
