"""What a machine has, read from its Node. Pure functions."""

from collections.abc import Iterable, Mapping
from typing import Any

from kaito_core.api import GpuSku, KubeObject
from kaito_core.api.nodes import GPU_RESOURCES
from kaito_core.api.quantity import device_count
from kaito_karpenter.cloud import KarpenterCloud

__all__ = ["offers_gpus", "reported", "smallest_sku"]

#: Labels of GPU feature discovery: MiB of one GPU, and its model.
_GPU_MEMORY, _GPU_MODEL = "nvidia.com/gpu.memory", "nvidia.com/gpu.product"
_PARTS = {"cpu": "CPUs", "memory": "of memory"}


def offers_gpus(node: KubeObject | None) -> bool:
    """Returns whether a node's device plugin has registered GPUs."""
    return bool(_gpus(node)[1])


def reported(node: KubeObject | None) -> str:
    """Returns what a node that has no GPUs yet does have, for a message."""
    allocatable = _allocatable(node)
    parts = [f"{allocatable[key]} {words}" for key, words in _PARTS.items() if allocatable.get(key)]
    return f"has {', '.join(parts)} and no GPUs yet" if parts else "has no GPUs yet"


def smallest_sku(instance_type: str, nodes: Iterable[KubeObject | None], cloud: KarpenterCloud) -> GpuSku | None:
    """Returns a machine type with the GPUs of its smallest node; None if a node's GPU memory is unknown."""
    skus: list[GpuSku] = []
    for node in nodes:
        labels: Mapping[str, Any] = (node or {}).get("metadata", {}).get("labels") or {}
        resource, gpus = _gpus(node)
        each = _gib(labels.get(_GPU_MEMORY) or labels.get(cloud.gpu_memory_label))
        if not gpus or not each:
            return None
        skus.append(GpuSku(instance_type, gpus, float(gpus * each), str(labels.get(_GPU_MODEL, "")), resource))
    return min(skus, key=lambda sku: (sku.gpu_memory_gib, sku.gpus), default=None)


def _gpus(node: KubeObject | None) -> tuple[str, int]:
    """Returns the resource name of a node's GPUs, and their number."""
    allocatable = _allocatable(node)
    counts = ((resource, device_count(allocatable.get(resource, 0)) or 0) for resource in GPU_RESOURCES)
    return next((found for found in counts if found[1]), ("", 0))


def _allocatable(node: KubeObject | None) -> Mapping[str, Any]:
    return (node or {}).get("status", {}).get("allocatable") or {}


def _gib(mebibytes: object) -> int:
    """Returns a label's MiB in GiB, 0 if unreadable. Rounded: drivers report slightly less than the GPU has."""
    text = str(mebibytes)
    return round(int(text) / 1024) if text.isascii() and text.isdigit() and len(text) < 12 else 0
