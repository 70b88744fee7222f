"""The dispatch and launch tables: plain integers in, plain integers out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaito_runtime.kernels.dispatch import PAIR_TOKENS, PAIR_TOKENS_PDL, TAIL_PAGES, Base, Path, choose, split_by_set
from kaito_runtime.kernels.launch import (
    ARCHITECTURES,
    PAGE,
    TILES,
    arch_of,
    block_m,
    cdiv,
    expand_add_blocks,
    gemm_expand_blocks,
    merge_blocks,
    next_power_of_2,
    shrink_blocks,
)

LARGE = PAIR_TOKENS_PDL + 1


@pytest.mark.parametrize(
    ("situation", "path"),
    [
        ({"tokens": 1, "pages": 0, "gpu": True}, Path.BASE),
        ({"tokens": 0, "pages": 3, "gpu": True}, Path.BASE),
        ({"tokens": 8, "pages": 0, "gpu": False, "merged": True}, Path.BASE),
        ({"tokens": 8, "pages": 2, "gpu": True, "merged": True}, Path.MERGED),
        ({"tokens": 8, "pages": 2, "gpu": False, "merged": True}, Path.MERGED),
        ({"tokens": 8, "pages": 2, "gpu": True, "merged": True, "base": Base.ROW_SCALED}, Path.PAIR),
        ({"tokens": 8, "pages": 2, "gpu": False}, Path.CAT),
        ({"tokens": LARGE, "pages": 2, "gpu": False}, Path.CAT),
        ({"tokens": 1, "pages": 1, "gpu": True}, Path.PAIR),
        ({"tokens": PAIR_TOKENS_PDL, "pages": 16, "gpu": True}, Path.PAIR),
        ({"tokens": PAIR_TOKENS, "pages": 16, "gpu": True, "pdl": False}, Path.PAIR),
        ({"tokens": PAIR_TOKENS + 1, "pages": 16, "gpu": True, "pdl": False}, Path.ADD),
        ({"tokens": 4, "pages": 1, "gpu": True, "base": Base.ROW_SCALED}, Path.PAIR),
        ({"tokens": 4, "pages": 1, "gpu": True, "base": Base.OPAQUE}, Path.ADD),
        ({"tokens": LARGE, "pages": 4, "gpu": True}, Path.ADD),
        ({"tokens": LARGE, "pages": 4, "gpu": True, "tail": 8}, Path.TAIL),
        ({"tokens": LARGE, "pages": 4, "gpu": True, "tail": 3}, Path.ADD),
        ({"tokens": LARGE, "pages": TAIL_PAGES + 1, "gpu": True, "tail": 99}, Path.ADD),
        ({"tokens": LARGE, "pages": 4, "gpu": True, "tail": 8, "mixes": 2}, Path.ADD),
        ({"tokens": LARGE, "pages": 4, "gpu": True, "tail": 8, "base": Base.ROW_SCALED}, Path.ADD),
    ],
)
def test_each_row_of_the_table(situation, path):
    assert choose(**situation) is path


def test_decode_is_multiplied_together_and_long_prefill_apart():
    assert not split_by_set([(1, 1)] * 8, 8)
    assert not split_by_set([(4, 1), (4, 2)], 2)
    assert split_by_set([(64, 1), (64, 1)], 2)
    assert not split_by_set([(1000, 2)], 2)
    assert not split_by_set([], 0)


@given(st.integers(0, 10**6), st.sampled_from([2, 4]))
def test_tiles_grow_with_the_step_and_are_never_wasted(tokens, itemsize):
    tile = block_m(tokens, itemsize)
    assert tile in TILES
    assert tokens > tile or all(smaller < tokens for smaller in TILES if smaller < tile)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("tile", TILES)
def test_every_tile_has_blocks_on_every_architecture(arch, itemsize, tile):
    if tile != block_m(tile, itemsize):
        pytest.skip("a step of this type has no such tiles")
    for k in (16, 576, 4544, 18176):
        b = shrink_blocks(arch, tile, k, itemsize)
        assert tile % b.m == 0 and b.r >= 2 * PAGE, "one page per program would waste half of each matrix instruction"
        assert b.split == next_power_of_2(b.split) and (b.split == 1 or (b.split // 2) * b.k < k)
    for weight in (1, itemsize):
        assert gemm_expand_blocks(arch, tile, itemsize, weight).m == tile
    assert expand_add_blocks(arch, tile, itemsize).m == tile
    assert merge_blocks(itemsize).n % PAGE == 0


@pytest.mark.parametrize(
    ("backend", "capability", "arch"),
    [("cuda", 80, "sm_80"), ("cuda", 89, "sm_80"), ("cuda", 90, "sm_90"), ("cuda", 120, "sm_90"), ("hip", 0, "gfx942")],
)
def test_devices_find_their_table(backend, capability, arch):
    assert arch_of(backend, capability) == arch


@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_integers(a, b):
    assert (cdiv(a, b) - 1) * b < max(a, 1) and cdiv(a, b) * b >= a
    assert next_power_of_2(a) >= a and next_power_of_2(a) < 2 * max(a, 1)
