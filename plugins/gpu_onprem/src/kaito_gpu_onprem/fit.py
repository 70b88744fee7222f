"""Which prepared nodes fit a request, and why the others do not: pure functions over nodes as Kubernetes writes them.

GPUs that other pods have are theirs, whether they are a Workspace's or not.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kaito_core.api import GpuSku, KubeObject, NodeRequest, NodeState, RejectedNode, matches
from kaito_core.api.labels import requirement_text
from kaito_core.api.nodes import GPU_RESOURCES, INSTANCE_TYPE_LABEL
from kaito_core.api.quantity import device_count, parse_gib
from kaito_gpu_onprem.sharing import GPU_MODEL_LABEL, is_shared, memory_gib, sharing

__all__ = ["gpu_count", "gpu_resource", "node_state", "rejection"]

MAX_NODES_IN_MESSAGE = 20


def node_state(nodes: Iterable[KubeObject], request: NodeRequest) -> NodeState:
    """Returns the nodes that fit, preferred ones first, then by name, and why the others do not.

    If the request has a label selector, every node must match it, preferred ones too. If it only has preferred nodes,
    these are the only candidates. If it has neither, all nodes are candidates. A request without GPUs, labels,
    preferred nodes and machine type is always satisfied, since the scheduler may put its pods anywhere.
    """
    by_name = {_name(node): node for node in nodes}
    rank = {name: index for index, name in enumerate(dict.fromkeys(request.preferred_nodes))}
    candidates = _candidates(by_name, request)
    ready: list[str] = []
    rejected: list[RejectedNode] = []
    for name in sorted(candidates, key=lambda name: (rank.get(name, len(rank)), name)):
        reason = rejection(by_name[name], request) if name in by_name else "does not exist in this cluster"
        if reason:
            rejected.append(RejectedNode(name, reason))
        else:
            ready.append(name)
    resource = ""
    if request.gpus:
        resource, others = _one_kind(ready, by_name, request)
        ready = [name for name in ready if name not in others]
        rejected += others.values()
    restricted = bool(rank or request.match_labels or request.match_expressions)
    enough = len(ready) >= request.count or (request.gpus == 0 and not restricted and not request.instance_type)
    return NodeState(
        ready=tuple(ready),
        reason="" if enough else "NodesNotReady",
        message="" if enough else _message(ready, rejected, request),
        rejected=tuple(rejected),
        sku=_smallest_sku((by_name[name] for name in ready[: request.count]), request),
        gpu_resource=resource,
    )


def _one_kind(
    ready: Sequence[str], by_name: Mapping[str, KubeObject], request: NodeRequest
) -> tuple[str, dict[str, RejectedNode]]:
    """Returns the GPU resource that the pods request, and the nodes that have another one.

    All pods have one template, which requests one resource: that of the nodes in use, or else that of the first node. A
    resource of which there are not enough nodes comes last.
    """
    names = {name: gpu_resource(by_name[name]) for name in ready}
    ordered = dict.fromkeys(names[name] for name in sorted(ready, key=lambda name: name not in request.held_nodes))
    kinds = sorted(ordered, key=lambda kind: list(names.values()).count(kind) < request.count)
    if not kinds:
        return "", {}
    strange = {
        name: RejectedNode(name, f"has {kind}, but the other nodes have {kinds[0]}")
        for name, kind in names.items()
        if kind != kinds[0]
    }
    return kinds[0], strange


def rejection(node: KubeObject, request: NodeRequest) -> str:
    """Returns why a node does not fit, or ""."""
    metadata, spec = _mapping(node, "metadata"), _mapping(node, "spec")
    labels = _labels(node)
    if metadata.get("deletionTimestamp"):
        return "is being deleted"
    if missing := _unmatched(labels, request):
        return f"does not match the label selector: {missing}"
    if not_ready := _not_ready(node):
        return not_ready
    if spec.get("unschedulable"):
        return f"is cordoned; run kubectl uncordon {_name(node)}"
    if foreign := [_taint(taint) for taint in spec.get("taints") or () if not _tolerated(taint, request)]:
        return f"has taints that the pods do not tolerate: {', '.join(foreign)}"
    machine = str(labels.get(INSTANCE_TYPE_LABEL, ""))
    if request.instance_type and machine and machine.casefold() != request.instance_type.casefold():
        return f"is a {machine}, but resource.instanceType is {request.instance_type}"
    return _gpu_rejection(node, request) or _room_rejection(node, request)


def gpu_resource(node: KubeObject) -> str:
    """Returns the resource name of a node's GPUs, "" if it has none."""
    allocatable = _mapping(_mapping(node, "status"), "allocatable")
    return next((resource for resource in GPU_RESOURCES if device_count(allocatable.get(resource, 0))), "")


def gpu_count(node: KubeObject) -> int:
    """Returns the number of GPUs that a node has for pods, 0 if the number cannot be read."""
    allocatable = _mapping(_mapping(node, "status"), "allocatable")
    return device_count(allocatable.get(gpu_resource(node), 0)) or 0


def _candidates(by_name: Mapping[str, KubeObject], request: NodeRequest) -> set[str]:
    preferred = set(request.preferred_nodes)
    if request.match_labels or request.match_expressions:
        # Nodes that do not match are not reported, unless the user has named them.
        return preferred | {name for name, node in by_name.items() if not _unmatched(_labels(node), request)}
    return preferred or set(by_name)


def _unmatched(labels: Mapping[str, Any], request: NodeRequest) -> str:
    """Returns the requirements of the selector that labels do not satisfy, as text."""
    missing = [
        f"{key}={value}"
        for key, value in request.match_labels.items()
        if not matches({"matchLabels": {key: value}}, labels)
    ]
    for expression in request.match_expressions:
        if not matches({"matchExpressions": [expression]}, labels):
            missing.append(requirement_text(expression))
    return ", ".join(missing)


def _not_ready(node: KubeObject) -> str:
    conditions = _mapping(node, "status").get("conditions") or ()
    ready: Mapping[str, Any] = next((found for found in conditions if found.get("type") == "Ready"), {})
    if ready.get("status") == "True":
        return ""
    cause = ready.get("message") or ready.get("reason") or "its kubelet has not reported"
    return f"is not ready: {cause}"


def _tolerated(taint: Mapping[str, Any], request: NodeRequest) -> bool:
    if taint.get("effect") == "PreferNoSchedule":
        return True
    return any(
        toleration.get("effect") in (None, "", taint.get("effect"))
        and (
            toleration.get("key") in (None, "", taint.get("key"))
            if toleration.get("operator") == "Exists"
            else (toleration.get("key"), toleration.get("value", "")) == (taint.get("key"), taint.get("value", ""))
        )
        for toleration in request.tolerations
    )


def _taint(taint: Mapping[str, Any]) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint.get('key')}{value}:{taint.get('effect')}"


def _gpu_rejection(node: KubeObject, request: NodeRequest) -> str:
    if request.gpus == 0:
        return ""
    gpus, taken = gpu_count(node), request.taken.get(_name(node), {})
    if gpus == 0:
        return _no_gpu(node)
    free = _free(node, request)
    used = ", ".join(f"{holder} uses {count}" for holder, count in sorted(taken.items()))
    has = f"{free} of {gpus} GPUs free ({used})" if taken else f"{gpus} GPUs"
    if free < request.gpus:
        return f"has {has}, {request.gpus} needed"
    shared = sharing(_labels(node), gpus)
    if shared and request.gpus > 1:
        return f"has GPUs {shared}: a pod can use one of them, {request.gpus} needed"
    memory = _together(node, request) * memory_gib(_labels(node), gpus)
    if memory and memory < request.gpu_memory_gib:
        where = f" on each of its GPUs, {shared}" if shared else f" with {has}" if taken else ""
        return f"has {memory:g} GiB of GPU memory{where}, {request.gpu_memory_gib:g} GiB needed"
    return ""


def _room_rejection(node: KubeObject, request: NodeRequest) -> str:
    """Returns what a node has too little of besides GPUs; what it does not report is left to the scheduler."""
    allocatable = _mapping(_mapping(node, "status"), "allocatable")
    for resource, what, needed in (
        ("memory", "main memory", request.memory_gib),
        ("ephemeral-storage", "disk", request.disk_gib),
    ):
        try:
            has = parse_gib(str(allocatable[resource])) if resource in allocatable else needed
        except ValueError:
            continue
        if has < needed:
            return f"has {math.floor(has * 10) / 10:g} GiB of {what}, {needed:g} GiB needed"
    return ""


def _free(node: KubeObject, request: NodeRequest) -> int:
    """Returns the number of GPUs of a node that no other pod uses."""
    return max(gpu_count(node) - sum(request.taken.get(_name(node), {}).values()), 0)


def _together(node: KubeObject, request: NodeRequest) -> int:
    """Returns the number of free GPUs that one pod can use together."""
    free = _free(node, request)
    return min(free, 1) if is_shared(_labels(node), gpu_count(node)) else free


def _no_gpu(node: KubeObject) -> str:
    allocatable = _mapping(_mapping(node, "status"), "allocatable")
    for resource in GPU_RESOURCES:
        value = allocatable.get(resource, 0)
        if device_count(value) is None:
            return f"has {str(value)[:40]!r} as {resource} in status.allocatable, which must be a whole number"
    return f"has no GPU ({' or '.join(GPU_RESOURCES)} in status.allocatable); is the device plugin running on it?"


def _smallest_sku(nodes: Iterable[KubeObject], request: NodeRequest) -> GpuSku | None:
    skus = []
    for node in nodes:
        labels = _labels(node)
        gpus, each = _together(node, request), memory_gib(labels, gpu_count(node))
        if not gpus or not each:
            return None  # a node of unknown size might be the smallest
        name = str(labels.get(INSTANCE_TYPE_LABEL, ""))
        skus.append(GpuSku(name, gpus, gpus * each, str(labels.get(GPU_MODEL_LABEL, "")), gpu_resource(node)))
    return min(skus, key=lambda sku: (sku.memory_per_gpu_gib, sku.gpus), default=None)


def _message(ready: Sequence[str], rejected: Sequence[RejectedNode], request: NodeRequest) -> str:
    shown = [f"{node.name} {node.reason}" for node in rejected[:MAX_NODES_IN_MESSAGE]]
    if len(rejected) > len(shown):
        shown.append(f"{len(rejected) - len(shown)} more nodes do not fit")
    if not ready and not rejected:
        wanted = _unmatched({}, request)
        shown.append(f"no node matches the label selector ({wanted})" if wanted else "the cluster has no nodes")
    return (
        f"{len(ready)} of {request.count} nodes fit: {'; '.join(shown) or 'there are no other nodes'}. "
        "Add nodes, or change resource.count, resource.preferredNodes, resource.labelSelector or "
        "resource.instanceType; nodes are checked again when one changes, and every half minute"
    )


def _name(node: KubeObject) -> str:
    return str(_mapping(node, "metadata").get("name", ""))


def _labels(node: KubeObject) -> Mapping[str, Any]:
    return _mapping(_mapping(node, "metadata"), "labels")


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}
