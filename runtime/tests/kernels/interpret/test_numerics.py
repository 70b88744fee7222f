"""The kernels themselves, run by Triton's interpreter, against fp64 truth. Run this folder in its own process."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import Case, error, make_case

from kaito_runtime.kernels.expand_add import expand_add_
from kaito_runtime.kernels.gemm_expand import gemm_expand, gemm_expand_reference
from kaito_runtime.kernels.launch import PAGE, ExpandBlocks, ShrinkBlocks
from kaito_runtime.kernels.shrink import shrink, shrink_reference

# bf16: the interpreter truncates where the device rounds, hence the wide limit.
LIMITS = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
RANKS = (1, 8, 16, 24, 40, 48)
SHRINK = ShrinkBlocks(16, 32, 64, 2, 4, 1)
EXPAND = ExpandBlocks(16, 32, 64, 4, 1)


def run(case: Case, *, tiles=None, of_shrink=SHRINK, of_expand=EXPAND, **more):
    tiles = tiles or case.tiles
    u = shrink(case.x, case.a_pool, case.s, tiles, blocks=of_shrink)
    return gemm_expand(case.x, case.w, u, case.b_pool, tiles, blocks=of_expand, **more)


MIXED = [(5, {0: 1.0, 5: -0.5}), (3, {}), (9, {1: 2.0}), (4, {2: 0.3, 3: -3.0, 4: 1.0})]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(("k", "n"), [(64, 32), (72, 40), (136, 33), (16, 16)])
def test_mixed_ranks_on_scattered_pages(dtype, k, n):
    case = make_case(ranks=RANKS, spans=MIXED, k=k, n=n, dtype=dtype)
    assert error(run(case), case.truth()) <= LIMITS[dtype]


@pytest.mark.parametrize("rank", [*RANKS, 256])
def test_each_rank_alone(rank):
    case = make_case(ranks=[rank], spans=[(3, {0: -1.5})], k=80, n=48, seed=rank)
    assert error(run(case), case.truth()) <= 1e-6


def test_thirty_two_adapters_on_thirty_two_tokens():
    ranks = [1 + 7 * i % 33 for i in range(32)]
    spans = [(1, {i: (-1.0) ** i, (i + 5) % 32: 0.25}) for i in range(32)]
    case = make_case(ranks=ranks, spans=spans, k=32, n=32)
    assert error(run(case), case.truth()) <= 1e-6


@pytest.mark.parametrize("tokens", [1, 2, 15, 16, 17, 31, 33])
def test_any_number_of_tokens(tokens):
    case = make_case(ranks=[8, 24], spans=[(tokens, {0: 0.5, 1: 1.0})], k=64, n=32, seed=tokens)
    assert error(run(case), case.truth()) <= 1e-6


@pytest.mark.parametrize("tokens", [3, 40, 100])
def test_the_blocks_of_the_tables(tokens):
    """No blocks given: those that a server uses, with tiles of 16, 64 and 128 tokens."""
    from kaito_runtime.kernels.launch import block_t

    case = make_case(
        ranks=[24, 8], spans=[(tokens - 2, {0: 0.5}), (2, {1: -1.0})], k=160, n=48, block_t=block_t(tokens, 4)
    )
    assert error(run(case, of_shrink=None, of_expand=None), case.truth()) <= 1e-6
    u = shrink(case.x, case.a_pool, case.s, case.tiles)
    y = expand_add_(case.x @ case.w.t(), u, case.b_pool, case.tiles)
    assert error(y, case.truth()) <= 1e-6


@pytest.mark.parametrize("split", [1, 2, 4, 8])
def test_planes_add_up_and_come_out_the_same_every_time(split):
    case = make_case(ranks=[40], spans=[(5, {0: 1.0})], k=200, n=32)
    blocks = ShrinkBlocks(16, 32, 32, split, 4, 1)
    u = shrink(case.x, case.a_pool, case.s, case.tiles, blocks=blocks)
    assert u.shape[0] == split
    first, again = run(case, of_shrink=blocks), run(case, of_shrink=blocks)
    assert error(first, case.truth()) <= 1e-6
    assert torch.equal(first, again)


@pytest.mark.parametrize("dtype", LIMITS)
def test_rows_of_strength_zero_and_tiles_without_adapters_are_bitwise_base(dtype):
    spans = [(3, {0: 1.0}), (2, {0: 0.0}), (11, {1: -1.0}), (16, {}), (5, {1: 0.0})]
    case = make_case(ranks=[8, 33], spans=spans, k=72, n=40, dtype=dtype)
    got, base = run(case), run(case, tiles=case.without_adapters())
    zero = (case.s == 0).all(dim=1)
    assert zero.sum() == 23
    assert torch.equal(got[zero], base[zero])
    assert (got[~zero] != base[~zero]).any(dim=1).all()


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_strength_zero_hides_whatever_the_adapter_holds():
    case = make_case(ranks=[8], spans=[(2, {0: 0.0}), (2, {0: 1.0})], k=64, n=32)
    base = run(case, tiles=case.without_adapters())
    case.a_pool[case.tiles.pages.long() * PAGE] = 3e38  # overflows to infinity
    assert torch.equal(run(case)[:2], base[:2])
    assert not torch.isfinite(run(case)[2:]).all()


def test_strengths_are_data():
    case = make_case(ranks=[16], spans=[(4, {0: 1.0})], k=64, n=32)
    once = run(case)
    case.s *= -2.5
    assert error(run(case), case.truth()) <= 1e-6
    assert not torch.allclose(run(case), once)


def test_a_wider_grid_than_needed_changes_nothing():
    """The grid comes from maxima, for CUDA graphs; programs beyond a tile's list do nothing."""
    want = make_case(ranks=[24, 8], spans=[(4, {0: 1.0, 1: 1.0})], k=64, n=32)
    wide = make_case(ranks=[24, 8], spans=[(4, {0: 1.0, 1: 1.0})], k=64, n=32, extra_width=9)
    assert torch.equal(run(want), run(wide))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bias(dtype):
    case = make_case(ranks=[8], spans=[(4, {0: 1.0})], k=64, n=40, dtype=dtype)
    bias = torch.randn(40).to(dtype)
    assert error(run(case, bias=bias), case.truth() + bias.double()) <= LIMITS[dtype]


@pytest.mark.parametrize("narrow", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("dtype", LIMITS)
def test_quantised_base_is_scaled_before_the_adapters(narrow, dtype):
    case = make_case(ranks=[8, 20], spans=[(3, {0: 1.0, 1: -0.5})], k=72, n=40, dtype=dtype)
    scale = torch.rand(40) * 0.01 + 0.001
    w = (case.w.float() / scale[:, None]).clamp(-127, 127)
    w = w.round().to(narrow) if narrow is torch.int8 else w.to(narrow)
    case.w = w.float() * scale[:, None]
    truth = case.truth()
    case.w = w
    assert error(run(case, w_scale=scale), truth) <= LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
def test_expand_add(dtype):
    case = make_case(ranks=RANKS, spans=[*MIXED[:3], (15, {}), (16, {})], k=72, n=40, dtype=dtype)
    base = (case.x.double() @ case.w.double().t()).to(dtype)
    base[5:8] = -0.0  # rows without adapters, in a tile with them: adding 0 would change the sign
    u = shrink(case.x, case.a_pool, case.s, case.tiles, blocks=SHRINK)
    y = base.clone()
    assert expand_add_(y, u, case.b_pool, case.tiles, blocks=ExpandBlocks(16, 32, 16, 4, 1)) is y
    # What is added is exact; that the product was rounded before is the price of two libraries.
    rounded = base.double() - case.x.double() @ case.w.double().t()
    assert error(y, case.truth() + rounded) <= LIMITS[dtype]
    untouched = (case.s == 0).all(dim=1)
    assert untouched.sum() == 34 and torch.equal(y[untouched].view(torch.uint8), base[untouched].view(torch.uint8))


@pytest.mark.parametrize("spans", [[], [(4, {})]])
def test_nothing_to_add(spans):
    case = make_case(ranks=[8], spans=spans, k=64, n=32)
    assert run(case).shape == (case.x.shape[0], 32)
    if spans:
        assert error(run(case), case.truth()) <= 1e-6
    y = case.x @ case.w.t()
    u = shrink(case.x, case.a_pool, case.s, case.tiles, blocks=SHRINK)
    assert torch.equal(expand_add_(y.clone(), u, case.b_pool, case.tiles), y)


def test_references_are_the_truth_in_plain_torch():
    case = make_case(ranks=RANKS, spans=MIXED, k=72, n=40)
    u = shrink_reference(case.x, case.a_pool, case.s.double(), case.tiles)
    assert error(gemm_expand_reference(case.x, case.w, u, case.b_pool, case.tiles), case.truth()) < 1e-13


strengths = st.one_of(st.just(0.0), st.floats(-10, 10, width=32))
span = st.tuples(st.integers(0, 12), st.dictionaries(st.integers(0, 2), strengths, max_size=3))


@settings(max_examples=30, deadline=None)
@given(
    spans=st.lists(span, min_size=1, max_size=4),
    ranks=st.tuples(*[st.integers(1, 48)] * 3),
    k=st.integers(1, 9).map(lambda i: 16 * i),
    n=st.integers(1, 70),
    seed=st.integers(0, 2**16),
    spare=st.integers(0, 5),
)
def test_any_shape_strength_and_page_layout(spans, ranks, k, n, seed, spare):
    case = make_case(ranks=ranks, spans=spans, k=k, n=n, seed=seed, spare_pages=spare)
    got = run(case)
    if got.numel():
        assert error(got, case.truth()) <= 1e-6
        zero = (case.s == 0).all(dim=1)
        base = run(case, tiles=case.without_adapters())
        assert torch.equal(got[zero], base[zero])


@pytest.mark.parametrize("largest", [2.0e4, 1.0e5, 1.0e7])
def test_products_beyond_the_range_of_fp16_are_right(largest):
    """x A^T times a strength may be far above 65504 where y is not."""
    case = make_case(ranks=[8, 24], spans=[(5, {0: 1.0}), (3, {1: -2.0}), (2, {})], k=64, n=32, dtype=torch.float16)
    case.a_pool.mul_(16)
    u = shrink(case.x, case.a_pool, case.s, case.tiles, blocks=SHRINK)
    s = case.s * (largest / u.abs().nan_to_num(0).max())
    u = shrink(case.x, case.a_pool, s, case.tiles, blocks=SHRINK)
    b_pool = (case.b_pool.double() / largest * 8).to(torch.float16)
    y = gemm_expand(case.x, case.w, u, b_pool, case.tiles, blocks=EXPAND)
    truth = gemm_expand_reference(
        case.x.double(),
        case.w.double(),
        shrink_reference(case.x, case.a_pool, s.double(), case.tiles),
        b_pool,
        case.tiles,
    )
    assert torch.isfinite(y).all()
    assert error(y, truth) <= 2e-3
    added = expand_add_(case.x @ case.w.t(), u, b_pool, case.tiles)
    assert error(added[:8], truth[:8]) <= 2e-3
