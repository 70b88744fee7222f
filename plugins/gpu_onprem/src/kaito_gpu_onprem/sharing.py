"""How pods share the physical GPUs of a node: in time slices, by MPS, or in slices of MIG. Pure functions of labels.

GPU feature discovery says it. A node has as many GPUs for pods as it has shares, but two shares may be of one card, and
slices of MIG cannot exchange tensors: a model has one of them, and its memory.

Source: https://github.com/NVIDIA/k8s-device-plugin#shared-access-to-gpus
"""

from collections.abc import Mapping
from typing import Any

from kaito_core.api.nodes import GPU_MEMORY_LABEL
from kaito_core.api.quantity import device_count

__all__ = ["GPU_MODEL_LABEL", "is_shared", "memory_gib", "sharing"]

GPU_MODEL_LABEL = "nvidia.com/gpu.product"
_REPLICAS_LABEL = "nvidia.com/gpu.replicas"  # pods that share one physical GPU
_COUNT_LABEL = "nvidia.com/gpu.count"  # physical GPUs
_SHARED, _MIG = "-SHARED", "-MIG-"  # in the name of the product


def sharing(labels: Mapping[str, Any], gpus: int) -> str:
    """Returns how the GPUs of a node are shared, as words that follow "has GPUs", "" where each is one card.

    Args:
        labels: The node's.
        gpus: Number of GPUs that it has for pods.
    """
    product = str(labels.get(GPU_MODEL_LABEL, ""))
    pods = _pods_per_gpu(labels, gpus)
    if pods > 1:
        return f"that {pods} pods share"
    return f"that are slices of MIG ({product})" if _MIG in product else ""


def is_shared(labels: Mapping[str, Any], gpus: int) -> bool:
    """Returns whether two of a node's GPUs may be parts of one card, so that a pod can use one alone."""
    return bool(sharing(labels, gpus))


def memory_gib(labels: Mapping[str, Any], gpus: int) -> float:
    """Returns the memory that a pod may use of one GPU in GiB, 0 if unknown.

    Rounded, since drivers report slightly less than the GPU has; divided by the pods that share the card.
    """
    text = str(labels.get(GPU_MEMORY_LABEL, ""))
    whole = round(int(text) / 1024) if text.isascii() and text.isdigit() and len(text) < 12 else 0
    return whole / _pods_per_gpu(labels, gpus)


def _pods_per_gpu(labels: Mapping[str, Any], gpus: int) -> int:
    replicas = device_count(labels.get(_REPLICAS_LABEL, 0)) or 0
    if replicas > 1:
        return replicas
    cards = device_count(labels.get(_COUNT_LABEL, 0)) or 0
    shared = str(labels.get(GPU_MODEL_LABEL, "")).endswith(_SHARED)
    return max(gpus // cards, 1) if shared and cards else 1
