"""What a container may use, from the kernel's files."""

from pathlib import Path

import pytest

from kaito_runtime.model.memory import cpu_limit, free_memory_bytes

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
