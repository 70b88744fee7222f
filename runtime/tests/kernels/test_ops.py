"""The operators: torch's own checks, one graph for all token counts and strengths, tracing for a GPU without one."""

import pytest
import torch
import torch._dynamo.testing
from kernel_cases import error, make_case
from torch._subclasses.fake_tensor import FakeTensorMode

import kaito_runtime.kernels.ops  # noqa: F401  (registers)
from kaito_runtime.kernels.merge import merge_reference

OPS = torch.ops.kaito


def paged(tokens: int = 5):
    case = make_case(ranks=[8, 24], spans=[(tokens - 1, {0: 0.5}), (1, {1: -2.0})], k=48, n=32)
    t = case.tiles
    return case, (case.a_pool, case.b_pool, case.s, t.start, t.pages, t.slots, t.block_m, t.width)


def cat(tokens: int = 5):
    g = torch.Generator().manual_seed(tokens)
    x, w = torch.randn(tokens, 48, generator=g), torch.randn(32, 48, generator=g)
    a_t, b_t = torch.randn(32, 48, generator=g).t(), torch.randn(32, 32, generator=g).t()
    return x, w, None, a_t, b_t, torch.randn(tokens, 32, generator=g)


def arguments(name: str):
    case, pools = paged()
    return {
        "cat_linear": cat(),
        "lora_linear": (case.x, case.w, torch.randn(32), None, *pools),
        "lora_add_": (case.x @ case.w.t(), case.x, *pools),
        "merge": (case.w, case.a_pool, case.b_pool, case.tiles.pages, torch.rand(case.tiles.pages.shape[0])),
    }[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cat_linear", "lora_linear", "lora_add_", "merge"])
def test_opcheck(name):
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static", "test_aot_dispatch_dynamic")
    results = torch.library.opcheck(getattr(OPS, name).default, arguments(name), test_utils=checks)
    assert set(results.values()) == {"SUCCESS"}


def test_operators_compute_the_formula():
    case, pools = paged()
    assert error(OPS.lora_linear(case.x, case.w, None, None, *pools), case.truth()) < 1e-6
    y = case.x @ case.w.t()
    OPS.lora_add_(y, case.x, *pools)
    assert error(y, case.truth()) < 1e-6
    w, a_pool, b_pool, pages, factors = arguments("merge")
    assert (
        error(OPS.merge(w, a_pool, b_pool, pages, factors), merge_reference(w, a_pool, b_pool, pages, factors.double()))
        < 1e-6
    )
    x, w, _, a_t, b_t, s = cat()
    truth = x.double() @ w.double().t() + (x.double() @ a_t.double() * s) @ b_t.double()
    assert error(OPS.cat_linear(x, w, None, a_t, b_t, s), truth) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cat_linear", "lora_linear"])
def test_one_graph_for_all_token_counts_and_strengths(name):
    counter = torch._dynamo.testing.CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(lambda *a: getattr(OPS, name)(*a) * 2, fullgraph=True, dynamic=True, backend=counter)
    for tokens in (5, 3, 7, 12, 16):
        if name == "cat_linear":
            x, w, bias, a_t, b_t, s = cat(tokens)
            for factor in (1.0, -0.5, 0.0, 3.25):
                got = compiled(x, w, bias, a_t, b_t, s * factor)
                assert torch.allclose(got, OPS.cat_linear(x, w, bias, a_t, b_t, s * factor) * 2)
        else:
            case, pools = paged(tokens)
            for factor in (1.0, -0.5, 0.0, 3.25):
                case.s.mul_(factor)
                got = compiled(case.x, case.w, None, None, *pools)
                assert torch.allclose(got, OPS.lora_linear(case.x, case.w, None, None, *pools) * 2)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_inductor_compiles_the_cpu_path():
    torch._dynamo.reset()
    compiled = torch.compile(lambda *a: torch.relu(OPS.cat_linear(*a)), fullgraph=True, dynamic=True)
    for tokens in (5, 9):
        assert torch.allclose(compiled(*cat(tokens)), torch.relu(OPS.cat_linear(*cat(tokens))), atol=1e-5)


def test_shapes_are_known_for_a_gpu_that_is_not_there():
    with FakeTensorMode():
        x = torch.empty(7, 64, device="cuda", dtype=torch.bfloat16)
        w = torch.empty(96, 64, device="cuda", dtype=torch.bfloat16)
        pools = [torch.empty(size, device="cuda") for size in ((32, 64), (2, 96, 16), (7, 1))]
        lists = [torch.empty(size, device="cuda", dtype=torch.int32) for size in (2, 1, 1)]
        y = OPS.lora_linear(x, w, None, None, *pools, *lists, 16, 1)
        assert (y.shape, y.dtype, y.device.type) == ((7, 96), torch.bfloat16, "cuda")
        assert OPS.merge(w, pools[0], pools[1], lists[1], pools[2]).shape == (96, 64)
