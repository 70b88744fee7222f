"""What there is of a Workspace in the cluster, as one snapshot, and questions about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.reconcile.podspec import ADAPTER_VARIABLE

__all__ = [
    "AdapterReport",
    "Observed",
    "PodProblem",
    "fetch_problem",
    "fetched_adapters",
    "is_ready",
    "is_running",
    "pod_problem",
    "pull_secrets",
]


@dataclass(frozen=True, slots=True)
class AdapterReport:
    """What one replica says that it has applied.

    Attributes:
        generation: Generation of the ServingConfig that it has read.
        adapters: For each adapter its name, strength, digest, state and message.
    """

    generation: int
    adapters: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """A snapshot.

    Attributes:
        children: The objects of the kinds and names that the Workspace uses, whoever made them.
        pods: The Workspace's pods.
        reports: What replicas say, by pod name; a pod that did not answer is absent.
    """

    children: tuple[KubeObject, ...] = ()
    pods: tuple[KubeObject, ...] = ()
    reports: Mapping[str, AdapterReport] = field(default_factory=dict)

    def child(self, kind: str, name: str) -> KubeObject | None:
        """Returns a child, or None."""
        for child in self.children:
            if child["kind"] == kind and child["metadata"]["name"] == name:
                return child
        return None


@dataclass(frozen=True, slots=True)
class PodProblem:
    """Why a pod does not get ready.

    Attributes:
        reason: CamelCase category, upstream's names.
        message: The cause in the cluster's own words, with the pod's and container's name.
    """

    reason: str
    message: str


def is_ready(pod: KubeObject) -> bool:
    """Returns whether a pod serves: its condition Ready is True and it is not on its way out."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def is_running(pod: KubeObject) -> bool:
    """Returns whether the runtime of a pod has been started and is not on its way out."""
    return pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def fetched_adapters(pod: KubeObject) -> set[str]:
    """Returns the folders ("name/revision") that containers of a pod fetch or have fetched."""
    spec = pod.get("spec", {})
    containers = [*spec.get("initContainers", []), *spec.get("ephemeralContainers", [])]
    return {
        str(variable.get("value"))
        for container in containers
        for variable in container.get("env", [])
        if variable.get("name") == ADAPTER_VARIABLE
    }


def fetch_problem(pod: KubeObject, folder: str) -> PodProblem | None:
    """Returns why the container that was added to a running pod does not fetch an adapter, or None."""
    names = [
        container["name"]
        for container in pod.get("spec", {}).get("ephemeralContainers", [])
        if {"name": ADAPTER_VARIABLE, "value": folder} in container.get("env", [])
    ]
    statuses = pod.get("status", {}).get("ephemeralContainerStatuses", [])
    problems = (_container_problem(pod["metadata"]["name"], status) for status in statuses if status["name"] in names)
    return next((problem for problem in problems if problem is not None), None)


def pull_secrets(pod: KubeObject) -> set[str]:
    """Returns the names of a pod's image pull secrets."""
    return {str(secret.get("name")) for secret in pod.get("spec", {}).get("imagePullSecrets") or ()}


_PULL_ERRORS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ImageInspectError", "ErrImageNeverPull")
_START_ERRORS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")


def _container_problem(pod: str, status: Mapping[str, Any]) -> PodProblem | None:
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
        return PodProblem("ContainerStartError", f"{name}: {waiting.get('message') or waiting['reason']}")
    failure = last if waiting.get("reason") == "CrashLoopBackOff" else ended
    if waiting.get("reason") == "CrashLoopBackOff" or ended.get("exitCode"):
        words = str(failure.get("message") or f"exit status {failure.get('exitCode', 'unknown')}").strip()
        return PodProblem(
            "ContainerCrashLoopBackOff", f"{name} fails: {words}; see kubectl logs {pod} -c {status.get('name')}"
        )
    return None


def pod_problem(pod: KubeObject) -> PodProblem | None:
    """Returns why a pod does not get ready, or None where it is ready or simply on its way."""
    name, status = pod["metadata"]["name"], pod.get("status", {})
    if status.get("reason") == "Evicted":
        return PodProblem("PodEvicted", f"pod '{name}' was evicted: {status.get('message', '')}".rstrip(": "))
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return PodProblem("Unschedulable", f"pod '{name}': {condition.get('message', 'no node fits')}")
    statuses: Sequence[Mapping[str, Any]] = [
        *status.get("initContainerStatuses", []),
        *status.get("containerStatuses", []),
    ]
    problems = (_container_problem(name, container) for container in statuses)
    return next((problem for problem in problems if problem is not None), None)
