"""What this container may use of its machine. torch asks the machine alone and would take all of it.

Reads version 2 of the kernel's control groups, which Kubernetes needs; elsewhere the machine's own figures count.
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
    """Returns how many CPUs the container's limit amounts to, rounded up; None where there is no limit.

    More threads than that are stopped by the kernel in the middle of each product, and the others wait for them.
    """
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if not (quota.isdigit() and period.isdigit()):  # "max 100000", or no such file
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def free_memory_bytes(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int | None:
    """Returns how much memory can still be taken, by the machine and by the container's limit; None if unknown."""
    rooms = []
    for line in _read(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            rooms.append(int(line.split()[1]) * 1024)
    limit, used = _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    if limit.isdigit() and used.isdigit():
        # What files are cached in counts as used, and goes when somebody needs it.
        statistics = dict(line.split() for line in _read(cgroup / "memory.stat").splitlines())
        cached = int(statistics.get("inactive_file", 0)) + int(statistics.get("active_file", 0))
        rooms.append(max(0, int(limit) - int(used) + cached))
    return min(rooms, default=None)


@contextmanager
def memory_for(what: str, advice: str) -> Iterator[None]:
    """Says what there was no memory for, and what to do, where the block runs out of it.

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
        page_tokens: Tokens of one page of it.
        step_tokens: Most tokens of one forward pass; longer prompts are cut into several.
        requests: Most requests of one forward pass.
        reuse_prefixes: Keep what prompts have in common instead of computing it again.
    """

    cache_tokens: int
    page_tokens: int = 32
    step_tokens: int = 512
    requests: int = 64
    reuse_prefixes: bool = False


def cache_bytes_per_token(model: nn.Module) -> int:
    """Returns how much key-value cache one token takes, all layers together."""
    wrapped: Any = model
    config = wrapped.config.get_text_config()
    heads, width = find_num_key_value_heads(config), find_head_dim(config)
    return int(2 * config.num_hidden_layers * heads * width * wrapped.dtype.itemsize)
