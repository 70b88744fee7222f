"""How much CPU and memory this container may use, and the sizes of the engine's batches.

torch looks at the machine and would take all of it, so the container's limits are read here, from version 2 of the
kernel's control groups. Where there are none, the machine's own figures hold.
Source: https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers.generation.continuous_batching.utils import find_head_dim, find_num_key_value_heads

from kaito_runtime.errors import ModelLoadError, is_out_of_memory, one_line

__all__ = ["BatchLimits", "cache_bytes_per_token", "cpu_limit", "free_memory_bytes", "memory_for"]

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def cpu_limit(cgroup: Path = CGROUP) -> int | None:
    """Returns the container's CPU limit, rounded up to whole CPUs; None if there is no limit.

    With more threads than that the kernel stops some of them in the middle of each product, and the others wait.
    """
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if not (quota.isdigit() and period.isdigit()):  # "max 100000", or no such file
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def free_memory_bytes(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int | None:
    """Returns the bytes that are free, by the machine and by the container's limit; None if unknown."""
    rooms = []
    for line in _read(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            rooms.append(int(line.split()[1]) * 1024)
    limit, used = _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    if limit.isdigit() and used.isdigit():
        # Cached files count as used, but give way when memory is needed.
        statistics = dict(line.split() for line in _read(cgroup / "memory.stat").splitlines())
        cached = int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0))
        rooms.append(max(0, int(limit) - int(used) + cached))
    return min(rooms, default=None)


@contextmanager
def memory_for(what: str, advice: str) -> Iterator[None]:
    """Names what there was no memory for, and what to do, if the block runs out of it.

    Args:
        what: What needs the memory.
        advice: What to do about it.

    Raises:
        ModelLoadError: Memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ModelLoadError(f"there is not enough memory for {what}: {one_line(error)}; {advice}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Sizes that are fixed when the server starts.

    Attributes:
        cache_tokens: Tokens that the key-value cache holds, all requests together.
        page_tokens: Tokens of one page of the cache.
        step_tokens: Most tokens of one forward pass; longer prompts take several.
        requests: Most requests of one forward pass.
        reuse_prefixes: Keep the keys and values of common beginnings of prompts instead of computing them again.
    """

    cache_tokens: int
    page_tokens: int = 32
    step_tokens: int = 512
    requests: int = 64
    reuse_prefixes: bool = False


def cache_bytes_per_token(model: nn.Module) -> int:
    """Returns the key-value cache of one token in all layers together, in bytes."""
    wrapped: Any = model
    config = wrapped.config.get_text_config()
    heads, width = find_num_key_value_heads(config), find_head_dim(config)
    return int(2 * config.num_hidden_layers * heads * width * wrapped.dtype.itemsize)
