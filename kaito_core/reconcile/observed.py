"""A snapshot of a Workspace's objects in the cluster, and what can be read off its pods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.reconcile.objects.podspec import ADAPTER_VARIABLE

__all__ = [
    "ENDED",
    "AdapterReport",
    "Observed",
    "fetched_adapters",
    "has_volumes",
    "is_ready",
    "is_running",
    "nodes_of",
    "outdated_pods",
    "pull_secrets",
]

ENDED = ("Succeeded", "Failed")  #: phases of pods that hold nothing of their node


@dataclass(frozen=True, slots=True)
class AdapterReport:
    """What one replica has applied, as it reports.

    Attributes:
        generation: Generation of the ServingConfig that the replica has read.
        adapters: For each adapter its name, strength, digest, state and message.
    """

    generation: int
    adapters: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """A snapshot of a Workspace's objects.

    Attributes:
        children: The Workspace's objects, and objects of other owners that have a name that the Workspace needs.
        pods: The Workspace's pods.
        reports: The reports of replicas, by pod name; a pod that did not answer is absent.
        events: Warnings of the namespace, read where pods do not start and their status does not say why.
    """

    children: tuple[KubeObject, ...] = ()
    pods: tuple[KubeObject, ...] = ()
    reports: Mapping[str, AdapterReport] = field(default_factory=dict)
    events: tuple[KubeObject, ...] = ()

    def child(self, kind: str, name: str) -> KubeObject | None:
        """Returns a child, or None."""
        for child in self.children:
            if child["kind"] == kind and child["metadata"]["name"] == name:
                return child
        return None


def is_ready(pod: KubeObject) -> bool:
    """Returns whether a pod serves: its condition Ready is True, and it is not being deleted."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def is_running(pod: KubeObject) -> bool:
    """Returns whether the containers of a pod run, and it is not being deleted."""
    return pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def nodes_of(pods: Sequence[KubeObject]) -> tuple[str, ...]:
    """Returns the names of the nodes that pods are on, sorted; a pod that has ended or is on its way out is on none."""
    return tuple(
        sorted(
            {
                pod["spec"]["nodeName"]
                for pod in pods
                if pod.get("spec", {}).get("nodeName")
                and pod.get("status", {}).get("phase") not in ENDED
                and "deletionTimestamp" not in pod["metadata"]
            }
        )
    )


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


def has_volumes(pod: KubeObject, container: KubeObject) -> bool:
    """Returns whether a pod has every volume that a container mounts."""
    volumes = {volume.get("name") for volume in pod.get("spec", {}).get("volumes") or ()}
    return all(mount["name"] in volumes for mount in container.get("volumeMounts", ()))


def pull_secrets(pod: KubeObject) -> set[str]:
    """Returns the names of a pod's image pull secrets."""
    return {str(secret.get("name")) for secret in pod.get("spec", {}).get("imagePullSecrets") or ()}


def outdated_pods(workload: KubeObject, pods: Sequence[KubeObject]) -> list[KubeObject]:
    """Returns the pods that a StatefulSet made from an earlier template; none while its status is behind its spec."""
    status = workload.get("status", {})
    revision, uid = status.get("updateRevision"), workload["metadata"].get("uid")
    if not revision or status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return []
    return [
        pod
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
        and pod["metadata"].get("labels", {}).get("controller-revision-hash", revision) != revision
        and any(owner.get("uid") == uid for owner in pod["metadata"].get("ownerReferences", []))
    ]
