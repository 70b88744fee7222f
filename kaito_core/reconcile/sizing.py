"""How many pods with how many GPUs a preset needs on the machines that there are, and whether it fits.

A preset's `gpus`, `gpu_memory_gib` and `memory_gib` are what one replica needs in all. A replica that is not
distributed is one pod and must find it on one machine; a distributed one is `resource.count` pods, one on each machine,
which share it equally. The disk is not shared: every pod has all the weights.

The GPU memory is the preset's own number, which covers the context too. Source, for presets that are made from a
config.json (`api.generic`): upstream's node estimator, weights * 1.02, and per GPU 2.3 GiB and a first cache.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kaito_core.api import GpuSku, KubeObject, ModelPreset, NodeRequest, Workspace
from kaito_core.api.nodes import GPU_RESOURCES
from kaito_core.errors import DoesNotFitError
from kaito_core.reconcile.podspec import tolerations
from kaito_core.reconcile.taken_gpus import pod_gpus

__all__ = ["Sizing", "node_request", "restricts_nodes", "size", "startup_seconds"]

_NO_MACHINE = 1 << 30  # GPUs, more than any machine has
_SECONDS_PER_GIB = 18  # upstream's; a disk that reads 60 MB/s


@dataclass(frozen=True, slots=True)
class Sizing:
    """What is needed.

    Attributes:
        replicas: Pods.
        gpus: GPUs per pod.
        gpu_memory_gib: GPU memory needed on each node, in GiB.
        memory_gib: Main memory per pod, in GiB.
    """

    replicas: int
    gpus: int
    gpu_memory_gib: float
    memory_gib: float


def size(preset: ModelPreset, count: int, sku: GpuSku | None, known: Iterable[GpuSku] = ()) -> Sizing:
    """Returns pods and GPUs for `count` replicas, or for one replica on `count` nodes where it is distributed.

    Args:
        preset: The model.
        count: `resource.count`.
        sku: The machine type, None where it is not known: then the preset's own numbers hold.
        known: Machine types that could be had instead, for the message.

    Raises:
        DoesNotFitError: The machines have too little GPU memory or too few GPUs.
    """
    nodes = count if preset.distributed else 1
    memory = preset.gpu_memory_gib / nodes
    if preset.heads % nodes:
        raise DoesNotFitError(
            "resource.count",
            f"preset '{preset.name}' is cut by its {preset.heads} heads",
            f"which {nodes} nodes cannot share equally; use a number that divides {preset.heads}",
        )
    gpus = _sharing(preset, nodes, math.ceil(preset.gpus / nodes))
    if preset.gpus and sku is not None:
        gpus = _gpus_on(sku, preset, nodes)
        if gpus > sku.gpus or sku.gpu_memory_gib < memory:
            raise _does_not_fit(preset, nodes, sku, known)
    return Sizing(count, gpus, memory, preset.memory_gib / nodes)


def _sharing(preset: ModelPreset, nodes: int, least: int) -> int:
    """Returns with how many GPUs of each node a model can be shared: `least`, or the next number up.

    Under tensor parallelism each GPU has the same number of heads. Where their number is not known, `least` is taken at
    its word; where no number will do, it is more than any machine has.
    """
    if not preset.heads or not least:
        return least
    return next((n for n in range(least, preset.heads + 1) if preset.heads % (n * nodes) == 0), _NO_MACHINE)


def _gpus_on(sku: GpuSku, preset: ModelPreset, nodes: int) -> int:
    """Returns how many GPUs of a machine hold a model's part; the machine may have fewer."""
    least = math.ceil(preset.gpus / nodes)
    if sku.gpus < 1 or sku.gpu_memory_gib <= 0:
        return least
    # More, smaller GPUs than the preset's authors had in mind: enough of them to hold the model.
    needed = max(least, math.ceil(preset.gpu_memory_gib / nodes / sku.memory_per_gpu_gib))
    if not preset.heads:
        return 1 << (needed - 1).bit_length()  # numbers of heads are powers of two, mostly
    return _sharing(preset, nodes, needed)


def _does_not_fit(preset: ModelPreset, nodes: int, sku: GpuSku, known: Iterable[GpuSku]) -> DoesNotFitError:
    """Returns what is needed, what there is, and the smallest machine type that would do."""
    memory = preset.gpu_memory_gib / nodes
    machine = sku.name or "the smallest node"
    if sku.gpus < 1 or sku.gpu_memory_gib < memory:
        scope = f"{nodes} of {machine}" if nodes > 1 else machine
        needed = f"needs {preset.gpu_memory_gib:g} GiB of GPU memory"
        has = f"{scope} has {sku.gpu_memory_gib * nodes:g} GiB"
        if preset.distributed:
            has += "; raise resource.count or choose a larger machine"
    else:
        each = _gpus_on(sku, preset, nodes)
        needed = f"needs {each} GPUs of {sku.memory_per_gpu_gib:g} GiB on each node"
        if preset.heads:
            needed += f", a number that shares its {preset.heads} heads equally"
        if each == _NO_MACHINE:
            needed = (
                f"has {preset.heads} heads, fewer than the GPUs of {sku.memory_per_gpu_gib:g} GiB that would hold it"
            )
        has = f"{machine} has {sku.gpus}"
    fitting = [
        other
        for other in known
        if other.gpus >= 1 and other.gpu_memory_gib >= memory and _gpus_on(other, preset, nodes) <= other.gpus
    ]
    if fitting:
        best = min(fitting, key=lambda other: (other.gpu_memory_gib, other.gpus, other.name))
        gpus = "1 GPU" if best.gpus == 1 else f"{best.gpus} GPUs"
        has += f"; the smallest known machine type that fits is {best.name} ({gpus}, {best.gpu_memory_gib:g} GiB)"
    return DoesNotFitError("resource.instanceType", f"preset '{preset.name}' {needed}", has)


def startup_seconds(preset: ModelPreset) -> int:
    """Returns how long loading may take: what the preset says, or longer where its weights are large."""
    return max(preset.startup_seconds, math.ceil(preset.weights.size_gib * _SECONDS_PER_GIB))


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
    own: KubeObject = (workspace.inference.template or {}).get("spec", {})
    tolerated: list[KubeObject] = []
    if preset is not None:
        sizing = size(preset, resource.count, None)
        # A machine with fewer, larger GPUs than the preset was measured on may do: `size` decides once it is known.
        gpus, memory, disk = min(sizing.gpus, 1), sizing.gpu_memory_gib, preset.disk_gib
    else:
        gpus, memory, disk = pod_gpus(own), 0.0, 0.0
        tolerated += own.get("tolerations", [])
    if gpus or preset is None:
        tolerated += tolerations(*GPU_RESOURCES)
    held = workspace.status.get("workerNodes")
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
        gpus=gpus,
        gpu_memory_gib=memory,
        disk_gib=disk,
        tolerations=tuple(tolerated),
        held_nodes=tuple(name for name in held if isinstance(name, str)) if isinstance(held, list) else (),
        annotations=workspace.metadata.annotations,
    )
