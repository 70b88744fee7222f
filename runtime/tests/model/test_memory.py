"""What a container may use, from the kernel's files."""

from pathlib import Path

import pytest
import torch

from kaito_runtime.errors import ModelLoadError
from kaito_runtime.model.memory import cpu_limit, free_memory_bytes, memory_for

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000", None), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("", None)]
)
def test_cpu_limit(tmp_path: Path, text: str, cpus: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert cpu_limit(tmp_path) == cpus


def test_without_control_groups_the_machine_decides(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path / "none") is None
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n")
    assert free_memory_bytes(tmp_path / "none", meminfo) == 8 * GIB
    assert free_memory_bytes(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"),
    [
        ("max", 3 * GIB, 0, 8),
        (str(4 * GIB), 3 * GIB, 0, 1),
        (str(4 * GIB), 3 * GIB, GIB, 2),
        (str(2 * GIB), 3 * GIB, 0, 0),
    ],
)
def test_the_narrower_of_machine_and_limit_counts(
    tmp_path: Path, limit: str, used: int, cached: int, free: int
) -> None:
    (tmp_path / "meminfo").write_text(f"MemAvailable: {8 * 1024 * 1024} kB\n")
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text(str(used))
    (tmp_path / "memory.stat").write_text(f"anon 1\nactive_file {cached // 2}\ninactive_file {cached - cached // 2}\n")
    assert free_memory_bytes(tmp_path, tmp_path / "meminfo") == free * GIB


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Memory footprint 66418487040 is more than available memory 61171071713"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_runs_out_is_said_with_what_it_was_for(error: Exception) -> None:
    with pytest.raises(ModelLoadError) as refused, memory_for("a cache of 9 tokens", "set --cache-gib lower"):
        raise error
    assert str(refused.value).startswith(f"there is not enough memory for a cache of 9 tokens: {type(error).__name__}")
    assert str(refused.value).endswith("; set --cache-gib lower")
    assert "\n" not in str(refused.value)


def test_what_the_cpu_says_when_it_has_no_memory_is_known() -> None:
    with pytest.raises(ModelLoadError, match="not enough memory for everything"), memory_for("everything", "no"):
        torch.empty(1 << 60)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="another"), memory_for("x", "y"):
        raise RuntimeError("another")
