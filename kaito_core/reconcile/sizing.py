"""How many pods with how many GPUs a preset needs on the machines that there are, and whether it fits.

A preset's `gpu_memory_gib` is what one replica needs in all; a replica that is not distributed must find it on one
machine, a distributed one on `resource.count` machines together.
"""

import math
from dataclasses import dataclass

from kaito_core.api import GpuSku, ModelPreset, NodeRequest, Workspace
from kaito_core.errors import DoesNotFitError

__all__ = ["Sizing", "node_request", "restricts_nodes", "size"]


@dataclass(frozen=True, slots=True)
class Sizing:
    """Attributes: replicas: Pods. gpus: GPUs per pod. gpu_memory_gib: GPU memory needed on each node, in GiB."""

    replicas: int
    gpus: int
    gpu_memory_gib: float


def size(preset: ModelPreset, count: int, sku: GpuSku | None) -> Sizing:
    """Returns pods and GPUs for `count` replicas, or for one replica on `count` nodes where it is distributed.

    Args:
        preset: The model.
        count: `resource.count`.
        sku: The machine type, None where it is not known: then the preset's own numbers hold.

    Raises:
        DoesNotFitError: The machines have too little GPU memory or too few GPUs.
    """
    nodes = count if preset.distributed else 1
    memory = preset.gpu_memory_gib / nodes
    gpus = math.ceil(preset.gpus / nodes)
    if preset.gpus == 0 or sku is None:
        return Sizing(count, gpus, memory)
    machine = sku.name or "the smallest node"
    if sku.gpus < 1 or sku.gpu_memory_gib < memory:
        scope = f"{nodes} of {machine}" if nodes > 1 else machine
        raise DoesNotFitError(
            "resource.instanceType",
            f"preset '{preset.name}' needs {preset.gpu_memory_gib:g} GiB of GPU memory",
            f"{scope} has {sku.gpu_memory_gib * nodes:g} GiB"
            + ("; raise resource.count or choose a larger machine" if preset.distributed else ""),
        )
    # More, smaller GPUs than the preset's authors had in mind: enough of them to hold the model. Under tensor
    # parallelism every GPU of a machine takes part, so the number is a power of two, as attention heads are.
    needed = max(gpus, math.ceil(memory / sku.memory_per_gpu_gib))
    gpus = 1 << (needed - 1).bit_length()
    if gpus > sku.gpus:
        raise DoesNotFitError(
            "resource.instanceType",
            f"preset '{preset.name}' needs {gpus} GPUs of {sku.memory_per_gpu_gib:g} GiB on each node",
            f"{machine} has {sku.gpus}",
        )
    return Sizing(count, gpus, memory)


def restricts_nodes(workspace: Workspace) -> bool:
    """Returns whether the Workspace says anything about which nodes it wants."""
    resource = workspace.resource
    selector = resource.label_selector
    return bool(
        resource.instance_type or resource.preferred_nodes or selector.match_labels or selector.match_expressions
    )


def node_request(workspace: Workspace, preset: ModelPreset | None) -> NodeRequest:
    """Returns the nodes that a Workspace asks a provider for."""
    resource = workspace.resource
    sizing = size(preset, resource.count, None) if preset is not None else Sizing(resource.count, 1, 0.0)
    return NodeRequest(
        workspace=workspace.name,
        namespace=workspace.namespace,
        uid=workspace.metadata.uid,
        count=resource.count,
        instance_type=resource.instance_type,
        match_labels=resource.label_selector.match_labels,
        match_expressions=tuple(
            expression.model_dump(by_alias=True) for expression in resource.label_selector.match_expressions
        ),
        preferred_nodes=resource.preferred_nodes,
        # A machine with fewer, larger GPUs than the preset was measured on may do: `size` decides once it is known.
        gpus=min(sizing.gpus, 1),
        gpu_memory_gib=sizing.gpu_memory_gib,
        disk_gib=preset.disk_gib if preset is not None else 0.0,
    )
