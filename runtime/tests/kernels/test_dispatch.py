"""The dispatch and launch tables: plain integers in, plain integers out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaito_runtime.kernels.dispatch import PAIR_TOKENS, PAIR_TOKENS_PDL, Base, Path, choose, split_by_set
from kaito_runtime.kernels.launch import (
    ARCHITECTURES,
    PAGE,
    TILES,
    arch_of,
    block_t,
    cdiv,
    expand_add_blocks,
    gemm_expand_blocks,
    has_kernels,
    next_power_of_2,
    shrink_blocks,
)


@pytest.mark.parametrize(
    ("situation", "path"),
    [
        ({"pages": 0}, Path.BASE),
        ({"tokens": 0}, Path.BASE),
        ({}, Path.PAIR),
        ({"all_live": False}, Path.ADD),
        ({"base": Base.ROW_SCALED}, Path.PAIR),
        ({"base": Base.ROW_SCALED, "all_live": False}, Path.ADD),
        ({"base": Base.OPAQUE}, Path.ADD),
        ({"base": Base.OPAQUE, "pages": 0}, Path.BASE),
        ({"tokens": PAIR_TOKENS_PDL, "pages": 16}, Path.PAIR),
        ({"tokens": PAIR_TOKENS_PDL + 1}, Path.ADD),
        ({"tokens": PAIR_TOKENS, "pages": 16, "pdl": False}, Path.PAIR),
        ({"tokens": PAIR_TOKENS + 1, "pages": 16, "pdl": False}, Path.ADD),
        ({"n": 1024}, Path.ADD),  # few programs, each with a long K
        ({"n": 1024, "k": 576}, Path.PAIR),
        ({"n": 1024, "tokens": 256}, Path.PAIR),
        ({"n": 1024, "base": Base.ROW_SCALED}, Path.PAIR),
    ],
)
def test_each_row_of_the_table(situation, path):
    usual = {"tokens": 4, "pages": 2, "all_live": True, "pdl": True, "base": Base.DENSE, "k": 4096, "n": 4096}
    assert choose(**usual | situation) is path


@given(tokens=st.integers(0, 10**5), pages=st.integers(0, 64), pdl=st.booleans(), base=st.sampled_from(Base))
def test_a_row_without_an_adapter_always_has_the_layers_own_product(tokens, pages, pdl, base):
    assert choose(tokens=tokens, pages=pages, all_live=False, pdl=pdl, base=base, k=64, n=64) is not Path.PAIR


def test_decode_is_multiplied_together_and_long_prefill_apart():
    assert not split_by_set([(1, 1)] * 8, 8)
    assert not split_by_set([(4, 1), (4, 2)], 2)
    assert split_by_set([(64, 1), (64, 1)], 2)
    assert not split_by_set([(1000, 2)], 2)
    assert not split_by_set([], 0)


@given(st.integers(0, 10**6), st.sampled_from([2, 4]))
def test_tiles_grow_with_the_step_and_are_never_wasted(tokens, itemsize):
    tile = block_t(tokens, itemsize)
    assert tile in TILES
    assert tokens > tile or all(smaller < tokens for smaller in TILES if smaller < tile)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("tile", TILES)
def test_every_tile_has_blocks_on_every_architecture(arch, itemsize, tile):
    if tile != block_t(tile, itemsize):
        pytest.skip("a step of this type has no such tiles")
    for k in (16, 576, 4544, 18176):
        b = shrink_blocks(arch, tile, k, itemsize)
        assert tile % b.t == 0 and b.r >= 2 * PAGE, "one page per program would waste half of each matrix instruction"
        assert b.split == next_power_of_2(b.split) and (b.split == 1 or (b.split // 2) * b.k < k)
    for weight in (1, itemsize):
        assert gemm_expand_blocks(arch, tile, itemsize, weight).t == tile
    assert expand_add_blocks(arch, tile, itemsize).t == tile


@pytest.mark.parametrize(
    ("backend", "capability", "arch"),
    [("cuda", 80, "sm_80"), ("cuda", 89, "sm_80"), ("cuda", 90, "sm_90"), ("cuda", 120, "sm_80"), ("hip", 0, "gfx942")],
)
def test_devices_find_their_table(backend, capability, arch):
    assert arch_of(backend, capability) == arch


@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_integers(a, b):
    assert (cdiv(a, b) - 1) * b < max(a, 1) and cdiv(a, b) * b >= a
    assert next_power_of_2(a) >= a and next_power_of_2(a) < 2 * max(a, 1)


@pytest.mark.parametrize(
    ("capability", "runs", "arch"),
    [(70, False, "sm_80"), (75, False, "sm_80"), (80, True, "sm_80"), (86, True, "sm_80"), (89, True, "sm_80"),
     (90, True, "sm_90"), (100, True, "sm_90"), (103, True, "sm_90"), (120, True, "sm_80"), (121, True, "sm_80")],
)  # fmt: skip
def test_every_device_has_a_table_or_no_kernels(capability, runs, arch):
    assert has_kernels("cuda", capability) is runs
    assert arch_of("cuda", capability) == arch
    assert has_kernels("hip", 0)
