"""What this machine has, and whether a model can run on it. Looked at before anything is downloaded."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from kaito_core.api import ModelPreset
from kaito_core.errors import ConfigError

__all__ = ["Machine", "check_machine", "this_machine"]

_GIB = 1 << 30
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container; the file says "max" where there is no limit
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, and either of them under WSL


@dataclass(frozen=True, slots=True)
class Machine:
    """What matters of a machine.

    Attributes:
        memory_gib: Main memory, in GiB; a container's limit counts.
        free_disk_gib: Free space where the weights are kept, in GiB.
        has_gpu: Whether it has a GPU, of any size.
    """

    memory_gib: float
    free_disk_gib: float
    has_gpu: bool


def this_machine(weights: Path) -> Machine:
    """Returns what this machine has; `weights` is where the weights are kept."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        limit = "max"
    return Machine(
        memory_gib=(min(memory, int(limit)) if limit.isdigit() else memory) / _GIB,
        free_disk_gib=shutil.disk_usage(weights).free / _GIB,
        has_gpu=any(Path(device).exists() for device in _GPU_DEVICES),
    )


def check_machine(preset: ModelPreset, machine: Machine, weights: Path, *, download: bool) -> str:
    """Returns a warning if the model may be too large for the machine, "" otherwise.

    The memory of a GPU is not checked: the runtime does that, and says what is missing.

    Args:
        preset: What is served.
        machine: What there is.
        weights: Where the weights are, or are downloaded to.
        download: Whether they are downloaded.

    Raises:
        ConfigError: The weights do not fit on the disk, or would be downloaded for a model that cannot be loaded.
    """
    size = preset.weights.size_gib
    if download:
        present = sum(path.stat().st_size for path in weights.rglob("*") if path.is_file()) / _GIB
        missing = max(size - present, 0)
        if missing > machine.free_disk_gib:
            raise ConfigError(
                f"{preset.name} needs {missing:.1f} GiB more disk for its weights, and {weights} has "
                f"{machine.free_disk_gib:.1f} GiB free; free some, or name weights on another disk with --weights"
            )
    if machine.has_gpu:
        return ""
    # In memory, weights of 16 bits take their own size, or twice that on a CPU that does not compute with 16 bits.
    largest = size if preset.dtype == "float32" else 2 * size
    found = f"this machine has no GPU and {machine.memory_gib:.1f} GiB of memory"
    if download and size > machine.memory_gib:
        raise ConfigError(
            f"{preset.name} needs at least {size:.1f} GiB of memory for its weights, and {found}; choose a smaller "
            f"model (kaito presets search --cpu), or try it all the same with weights of yours: --weights FOLDER"
        )
    if largest > machine.memory_gib:
        return (
            f"warning: {preset.name} needs between {size:.1f} and {largest:.1f} GiB of memory for its weights, and "
            f"{found}; if it runs out, the runtime is killed"
        )
    return ""
