"""Which GPUs of which nodes other pods have: what a Workspace that looks for nodes cannot have.

A pod has the GPUs of the node that it is on. One that has no node yet has none: the scheduler, which gives each GPU to
one pod only, decides between those that wait.
"""

from collections.abc import Iterable, Mapping

from kaito_core.api import KubeObject
from kaito_core.api.nodes import GPU_RESOURCES
from kaito_core.api.quantity import device_count
from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.reconcile.observed import ENDED

__all__ = ["pod_gpus", "taken_gpus"]


def pod_gpus(spec: KubeObject) -> int:
    """Returns the GPUs that a pod spec asks for, of any vendor."""
    found = 0
    for container in spec.get("containers", []):
        resources = container.get("resources")
        limits = resources.get("limits") if isinstance(resources, Mapping) else None
        if isinstance(limits, Mapping):
            found += sum(device_count(limits.get(resource, 0)) or 0 for resource in GPU_RESOURCES)
    return found


def taken_gpus(owner: str, pods: Iterable[KubeObject]) -> dict[str, dict[str, int]]:
    """Returns the GPUs that pods of others have, by node and holder, such as "Workspace 'team/w'".

    Args:
        owner: "namespace/name" of the Workspace that looks for nodes.
        pods: Pods, of Workspaces or not.
    """
    taken: dict[str, dict[str, int]] = {}
    for pod in pods:
        spec = pod.get("spec", {})
        node, gpus = spec.get("nodeName"), pod_gpus(spec)
        holder = _holder(pod)
        if node and gpus and holder != _workspace(owner) and pod.get("status", {}).get("phase") not in ENDED:
            row = taken.setdefault(node, {})
            row[holder] = row.get(holder, 0) + gpus
    return taken


def _holder(pod: KubeObject) -> str:
    """Returns whose GPUs a pod has, in words."""
    metadata = pod["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata.get("labels", {}).get(WORKSPACE_LABEL, "")
    return _workspace(f"{namespace}/{name}") if name else f"pod '{namespace}/{metadata['name']}'"


def _workspace(owner: str) -> str:
    return f"Workspace '{owner}'"
