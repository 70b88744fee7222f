"""How many pods with how many GPUs a preset needs on a type of machine, and whether it fits.

A preset's `gpus`, `gpu_memory_gib` and `memory_gib` are what one replica needs in all. A replica is one pod on one
machine; where the preset is distributed, it is `resource.count` pods on as many machines, which share it equally. The
disk is not shared: every pod has all the weights. A machine must have the GPU memory that the preset asks for, and the
runtime must start on it: that is the arithmetic of `api.preset.memory`, which the runtime does again at its start.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from kaito_core.api import GpuSku, ModelPreset
from kaito_core.api.preset.memory import MemoryPlan, format_bytes, gpu_room, plan_memory, preset_memory
from kaito_core.errors import DoesNotFitError

__all__ = ["Sizing", "budget", "size", "startup_seconds"]

_NO_MACHINE = 1 << 30  # GPUs, more than any machine has
_SECONDS_PER_GIB = 18  # upstream's; a disk that reads 60 MB/s


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a Workspace needs.

    Attributes:
        replicas: Number of pods.
        gpus: GPUs per pod.
        gpu_memory_gib: GPU memory needed on each node, in GiB.
        memory_gib: Main memory per pod, in GiB.
    """

    replicas: int
    gpus: int
    gpu_memory_gib: float
    memory_gib: float


def size(preset: ModelPreset, count: int, sku: GpuSku | None, known: Iterable[GpuSku] = ()) -> Sizing:
    """Returns what `count` replicas need, or one replica on `count` nodes where the preset is distributed.

    Without a replica nothing has to fit: the numbers are those of one replica on one node.

    Args:
        preset: The model.
        count: Number of replicas that the Workspace asks for.
        sku: The machine type; None, where it is unknown, takes the preset's own numbers.
        known: Other machine types, of which the message recommends one.

    Raises:
        DoesNotFitError: The machines have too little GPU memory or too few GPUs.
    """
    nodes = max(count, 1) if preset.distributed else 1
    memory = preset.gpu_memory_gib / nodes
    if preset.heads % nodes:
        raise DoesNotFitError(
            "resource.count",
            f"preset '{preset.name}' is cut by its {preset.heads} heads",
            f"which {nodes} nodes cannot share equally; use a number that divides {preset.heads}",
        )
    gpus = _sharing(preset, nodes, math.ceil(preset.gpus / nodes))
    if preset.gpus and sku is not None and count:
        gpus = _gpus_on(sku, preset, nodes)
        if gpus > sku.gpus or sku.gpu_memory_gib < memory or not budget(preset, sku, gpus * nodes).starts:
            raise _does_not_fit(preset, nodes, sku, known)
    return Sizing(count, gpus, memory, preset.memory_gib / nodes)


def _sharing(preset: ModelPreset, nodes: int, least: int) -> int:
    """Returns the number of GPUs on each node that can share a model: the first from `least` on that divides its heads.

    Under tensor parallelism each GPU has the same number of heads. It is `least` where their number is not known, and
    more than any machine has where there is no such number.
    """
    if not preset.heads or not least:
        return least
    return next((n for n in range(least, preset.heads + 1) if preset.heads % (n * nodes) == 0), _NO_MACHINE)


def _gpus_on(sku: GpuSku, preset: ModelPreset, nodes: int) -> int:
    """Returns how many GPUs of a machine's type hold a node's part of a model; the machine may have fewer.

    As many as the preset says where the machine has them. Where its GPUs are smaller than those of the preset's
    authors, more of them hold the model; where they are larger, fewer do.
    """
    meant = math.ceil(preset.gpus / nodes)
    if sku.gpus < 1 or sku.gpu_memory_gib <= 0:
        return meant
    needed = max(1, math.ceil(preset.gpu_memory_gib / nodes / sku.memory_per_gpu_gib))
    # More than the preset's number where the runtime would not start on so few: each GPU also holds what is not cut.
    needed = next((n for n in range(needed, sku.gpus + 1) if _starts_on(sku, preset, nodes, n)), needed)
    usual = _shares(preset, nodes, max(meant, needed))
    return usual if usual <= sku.gpus else _shares(preset, nodes, max(needed, 1))


def budget(preset: ModelPreset, sku: GpuSku, gpus: int) -> MemoryPlan:
    """Returns how the runtime spends the memory of each of the `gpus` GPUs that share a model."""
    room = gpu_room(sku.memory_per_gpu_gib, sku.gpu_model)
    return plan_memory(preset_memory(preset, gpus), room, gpus=gpus)


def _starts_on(sku: GpuSku, preset: ModelPreset, nodes: int, gpus: int) -> bool:
    return _shares(preset, nodes, gpus) == gpus and budget(preset, sku, gpus * nodes).starts


def _shares(preset: ModelPreset, nodes: int, least: int) -> int:
    """Returns the number of GPUs as `_sharing` does; where the heads are not known, the next power of two."""
    return _sharing(preset, nodes, least) if preset.heads else 1 << (least - 1).bit_length()  # as heads mostly are


def _does_not_fit(preset: ModelPreset, nodes: int, sku: GpuSku, known: Iterable[GpuSku]) -> DoesNotFitError:
    """Returns the error: what is needed, what the machine has, and the smallest machine type that fits."""
    memory = preset.gpu_memory_gib / nodes
    machine = sku.name or "the smallest node"
    if sku.gpus < 1 or sku.gpu_memory_gib < memory:
        scope = f"{nodes} of {machine}" if nodes > 1 else machine
        needed = f"needs {preset.gpu_memory_gib:g} GiB of GPU memory"
        has = f"{scope} has {sku.gpu_memory_gib * nodes:g} GiB"
        if preset.distributed:
            has += "; raise resource.count or choose a larger machine"
    elif (each := _gpus_on(sku, preset, nodes)) <= sku.gpus:
        plan = budget(preset, sku, each * nodes)
        gpus = "on its GPU" if each == 1 else f"on each of {each} GPUs"
        parts = ", ".join(f"{item.what} {format_bytes(item.nbytes)}" for item in plan.items[:-1])
        needed = f"does not start {gpus}: {plan.missing} ({parts})"
        has = f"{machine} has {sku.memory_per_gpu_gib:g} GiB a GPU, not all of it for programs"
    else:
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
        if other.gpus >= 1
        and other.gpu_memory_gib >= memory
        and (on_it := _gpus_on(other, preset, nodes)) <= other.gpus
        and budget(preset, other, on_it * nodes).starts
    ]
    if fitting:
        best = min(fitting, key=lambda other: (other.gpu_memory_gib, other.gpus, other.name))
        gpus = "1 GPU" if best.gpus == 1 else f"{best.gpus} GPUs"
        has += f"; the smallest known machine type that fits is {best.name} ({gpus}, {best.gpu_memory_gib:g} GiB)"
    return DoesNotFitError("resource.instanceType", f"preset '{preset.name}' {needed}", has)


def startup_seconds(preset: ModelPreset) -> int:
    """Returns how long loading may take: as the preset says, or longer for large weights."""
    return max(preset.startup_seconds, math.ceil(preset.weights.size_gib * _SECONDS_PER_GIB))
