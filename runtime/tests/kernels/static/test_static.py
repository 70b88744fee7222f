"""Budgets of every binary that a server may run on sm_80, sm_90 and gfx942, that those fit sm_89, sm_100 and sm_120,
and tests of the gates themselves."""

from dataclasses import replace

import gates
import pytest
from compiled import compile_config
from gates import breaches, configs, misfits, relatives

from kaito_runtime.kernels.launch import ExpandBlocks, ShrinkBlocks

pytestmark = pytest.mark.slow  # a second per binary where Triton's cache is cold


@pytest.mark.parametrize("config", list(configs()), ids=lambda c: f"{c.arch}-{c.name.replace(' ', '-')}")
def test_budget(config, table):
    f = compile_config(config)
    found = breaches(config, f)
    ratio = f"{f.instructions_per_mma:.1f}" if f.efficiency else "-"
    table.append(
        f"{config.arch:7}{config.name:46}{f.registers:5}{f.spill_bytes:6}{f.shared:8}{f.programs:5}  {f.mma:6}"
        f"{f.efficiency:6.2f}{ratio:>8}{f.async_copies:6}{f.in_flight // 1024:8} K  "
        f"{'wait' if f.pdl_wait else ''}{'launch' if f.pdl_launch else ''}"
        f"{'  BREACH: ' * bool(found)}{'; '.join(found)}"
    )
    assert not found


@pytest.mark.parametrize("config", list(relatives()), ids=lambda c: f"{c.arch}-{c.name.replace(' ', '-')}")
def test_the_tables_fit_devices_without_one_of_their_own(config):
    assert misfits(config, compile_config(config)) == []


def with_blocks(monkeypatch, table: str, blocks) -> None:
    monkeypatch.setattr(gates, table, lambda *_: blocks)


def test_the_gate_sees_spills(monkeypatch):
    with_blocks(monkeypatch, "shrink_blocks", ShrinkBlocks(128, 64, 64, 1, 4, 3))  # fp32 in the tiles of bf16
    config = gates.shrink("sm_80", 128, "fp32", True)
    assert any("spills" in words for words in breaches(config, compile_config(config)))


@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_the_gate_sees_warps_that_repeat_one_another(arch, monkeypatch):
    warps = 8 if arch == "sm_90" else 4
    with_blocks(monkeypatch, "gemm_expand_blocks", ExpandBlocks(16, 32, 128, warps, 2))
    config = gates.gemm_expand(arch, 16, "bf16", True)
    assert any("efficiency" in words for words in breaches(config, compile_config(config)))


def test_the_gate_sees_a_tile_of_one_page(monkeypatch):
    with_blocks(monkeypatch, "shrink_blocks", ShrinkBlocks(16, 16, 128, 16, 4, 3))
    config = gates.shrink("sm_90", 16, "bf16", True)
    assert any("efficiency" in words for words in breaches(config, compile_config(config)))


def test_the_gate_sees_too_much_shared_memory(monkeypatch):
    with_blocks(monkeypatch, "gemm_expand_blocks", ExpandBlocks(128, 128, 128, 8, 5))
    config = gates.gemm_expand("sm_80", 128, "bf16", True)
    assert any("shared memory" in words for words in breaches(config, compile_config(config)))


def test_the_gate_sees_copies_that_are_not_asynchronous():
    config = replace(gates.gemm_expand("sm_90", 16, "bf16", True), aligned=())
    found = breaches(config, compile_config(config))
    assert any("asynchronous" in words for words in found)


def test_the_gate_sees_a_missing_or_misplaced_dependent_launch():
    config = gates.gemm_expand("sm_90", 16, "bf16", True)
    config = replace(config, constants={**config.constants, "PDL": False})
    assert any("griddepcontrol.wait" in words for words in breaches(config, compile_config(config)))
    config = gates.shrink("sm_90", 16, "bf16", True)
    config = replace(config, constants={**config.constants, "PDL": False})
    assert any("launch_dependents" in words for words in breaches(config, compile_config(config)))


def test_the_gate_sees_the_wrong_matrix_instruction(monkeypatch):
    with_blocks(monkeypatch, "gemm_expand_blocks", ExpandBlocks(64, 64, 64, 2, 3))  # wgmma needs four warps
    config = gates.gemm_expand("sm_90", 64, "bf16", True)
    assert any("matrix instruction HMMA, expected HGMMA" in words for words in breaches(config, compile_config(config)))
