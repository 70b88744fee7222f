"""The GPUs that other Workspaces hold on each node, so that none is given away twice.

A pod holds GPUs of its node. A workload whose pods are not placed yet holds those of the nodes that it is pinned to,
unless an earlier workload is pinned to them too. All of this is read from the cluster, so that a restarted operator
comes to the same result.
"""

from collections.abc import Iterable, Mapping

from kaito_core.api import KubeObject
from kaito_core.api.nodes import GPU_RESOURCES
from kaito_core.api.quantity import device_count
from kaito_core.api.workload import WORKSPACE_LABEL

__all__ = ["pinned_nodes", "pod_gpus", "taken_gpus"]

_ENDED = ("Succeeded", "Failed")
_Claims = dict[tuple[str, str], int]  # (owner, node) -> GPUs


def pod_gpus(spec: KubeObject) -> int:
    """Returns the number of GPUs of any vendor in a pod spec."""
    found = 0
    for container in spec.get("containers", []):
        resources = container.get("resources")
        limits = resources.get("limits") if isinstance(resources, Mapping) else None
        if isinstance(limits, Mapping):
            found += sum(device_count(limits.get(resource, 0)) or 0 for resource in GPU_RESOURCES)
    return found


def pinned_nodes(spec: KubeObject) -> list[str]:
    """Returns the names of the nodes that a pod spec is pinned to, sorted; none where it may run on any."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    names = {
        str(name)
        for term in terms
        for field in term.get("matchFields") or []
        if field.get("key") == "metadata.name" and field.get("operator") == "In"
        for name in field.get("values") or []
    }
    return sorted(names)


def taken_gpus(owner: str, workloads: Iterable[KubeObject], pods: Iterable[KubeObject]) -> dict[str, dict[str, int]]:
    """Returns the GPUs that other Workspaces hold, by node and "namespace/name".

    Args:
        owner: "namespace/name" of the Workspace that nodes are looked for.
        workloads: Deployments and StatefulSets of all Workspaces.
        pods: Pods of all Workspaces.
    """
    workloads = [workload for workload in workloads if pod_gpus(_template_spec(workload))]
    placed: _Claims = {}
    count: dict[str, int] = {}
    for pod in pods:
        node, gpus = pod.get("spec", {}).get("nodeName"), pod_gpus(pod.get("spec", {}))
        if node and gpus and pod.get("status", {}).get("phase") not in _ENDED:
            placed[_owner(pod), node] = placed.get((_owner(pod), node), 0) + gpus
            count[_owner(pod)] = count.get(_owner(pod), 0) + 1
    planned: _Claims = {}
    for workload in workloads:
        planned |= _planned(workload, placed, count.get(_owner(workload), 0))
    age = {_owner(workload): _age(workload) for workload in workloads}
    taken: dict[str, dict[str, int]] = {}
    for claims, firm in ((placed, True), (planned, False)):
        for (other, node), gpus in sorted(claims.items()):
            weaker = not firm and ((owner, node) in placed or ((owner, node) in planned and age[owner] < age[other]))
            if other != owner and not weaker:
                row = taken.setdefault(node, {})
                row[other] = row.get(other, 0) + gpus
    return taken


def _planned(workload: KubeObject, placed: _Claims, running: int) -> _Claims:
    """Returns the GPUs of pods that have no node yet: one pod on each of the pinned nodes that has none."""
    owner, spec = _owner(workload), _template_spec(workload)
    free = [node for node in pinned_nodes(spec) if (owner, node) not in placed]
    missing = max(int(workload["spec"].get("replicas", 1)) - running, 0)
    return {(owner, node): pod_gpus(spec) for node in free[:missing]}


def _owner(obj: KubeObject) -> str:
    metadata = obj["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata.get('labels', {}).get(WORKSPACE_LABEL, '')}"


def _age(workload: KubeObject) -> tuple[str, str]:
    return str(workload["metadata"].get("creationTimestamp", "")), _owner(workload)


def _template_spec(workload: KubeObject) -> KubeObject:
    spec: KubeObject = workload.get("spec", {}).get("template", {}).get("spec", {})
    return spec
