"""The kernels on a real GPU: tensor cores' numerics, determinism, CUDA graphs, races. Skipped where there is none.

python -m pytest runtime/tests/kernels/test_gpu.py
"""

import pytest
import torch
from kernel_cases import Case, error, make_case
from torch import nn

from kaito_runtime.kernels.launch import block_m

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch.cuda.is_available() is false"),
]

# As in the interpreter; bf16 and fp16 round to nearest here, and their products are exact in fp32.
LIMITS = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
SHAPES = [(576, 576), (576, 1536), (4544, 4672), (4096, 14336)]  # (K, N): SmolLM2, Falcon-7B's fused QKV, Llama 8B


def on_gpu(case: Case) -> Case:
    t = case.tiles
    for name in ("x", "w", "a_pool", "b_pool", "s"):
        setattr(case, name, getattr(case, name).cuda())
    case.tiles = type(t)(t.start.cuda(), t.pages.cuda(), t.slots.cuda(), t.block_m, t.width)
    return case


def big_case(tokens: int, k: int, n: int, dtype: torch.dtype) -> Case:
    first = tokens // 3
    spans = [(first, {0: 0.8, 2: -0.5}), (tokens // 4, {}), (tokens - first - tokens // 4, {1: 1.5})]
    return make_case(
        ranks=[8, 64, 24], spans=spans, k=k, n=n, dtype=dtype, block_m=block_m(tokens, dtype.itemsize), seed=tokens
    )


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("tokens", [1, 7, 16, 33, 64, 100, 256, 700])
@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_pair_against_fp64(dtype, tokens, k, n):
    from kaito_runtime.kernels.paged_linear import lora_linear

    case = big_case(tokens, k, n, dtype)
    truth = case.truth()
    case = on_gpu(case)
    y = lora_linear(case.x, case.w, case.a_pool, case.b_pool, case.s, case.tiles)
    assert error(y.cpu(), truth) <= LIMITS[dtype]


@pytest.mark.parametrize("tokens", [1, 16, 64, 300, 2048])
def test_add_against_fp64(tokens):
    from kaito_runtime.kernels.paged_linear import lora_add_

    case = big_case(tokens, 1024, 1536, torch.bfloat16)
    base = (case.x.float() @ case.w.float().t()).bfloat16()
    truth = case.truth() - case.x.double() @ case.w.double().t() + base.double()
    case = on_gpu(case)
    y = lora_add_(base.cuda(), case.x, case.a_pool, case.b_pool, case.s, case.tiles)
    assert error(y.cpu(), truth) <= LIMITS[torch.bfloat16]


def test_the_same_input_gives_the_same_bits():
    """Also a race would show here: K2 that does not wait for K1 reads planes of the run before."""
    from kaito_runtime.kernels.paged_linear import lora_linear

    case = on_gpu(big_case(16, 4096, 4096, torch.bfloat16))
    arguments = (case.x, case.w, case.a_pool, case.b_pool)
    first = lora_linear(*arguments, case.s, case.tiles)
    for i in range(200):
        lora_linear(*arguments, case.s * (i + 1), case.tiles)
        assert torch.equal(lora_linear(*arguments, case.s, case.tiles), first)


def test_tokens_without_adapters_are_bitwise_base():
    from kaito_runtime.kernels.paged_linear import lora_linear

    case = on_gpu(big_case(100, 4096, 4096, torch.bfloat16))
    arguments = (case.x, case.w, case.a_pool, case.b_pool, case.s)
    got, base = lora_linear(*arguments, case.tiles), lora_linear(*arguments, case.without_adapters())
    zero = (case.s == 0).all(dim=1)
    assert torch.equal(got[zero], base[zero]) and not torch.equal(got[~zero], base[~zero])


def test_a_cuda_graph_replays_with_new_strengths_and_tokens():
    from kaito_runtime.kernels.paged_linear import lora_linear

    case = make_case(ranks=[8, 64], spans=[(16, {0: 1.0, 1: 1.0})], k=4096, n=4096, dtype=torch.bfloat16)
    case = on_gpu(case)
    arguments = (case.x, case.w, case.a_pool, case.b_pool, case.s, case.tiles)
    lora_linear(*arguments)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = lora_linear(*arguments)
    for factor in (0.5, -2.0, 0.0):
        case.s.fill_(factor)
        case.x.normal_()
        graph.replay()
        assert torch.equal(y, lora_linear(*arguments))


@pytest.mark.parametrize("narrow", [torch.int8, torch.float8_e4m3fn])
def test_quantised_base(narrow):
    from kaito_runtime.kernels.paged_linear import lora_linear

    if narrow is torch.float8_e4m3fn and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("fp8 weights need sm_90")
    case = big_case(16, 1024, 1536, torch.bfloat16)
    scale = torch.rand(1536) * 0.01 + 0.001
    weight = (case.w.float() / scale[:, None]).clamp(-127, 127).round().to(narrow)
    case.w = weight.float() * scale[:, None]
    truth = case.truth()
    case.w = weight
    case = on_gpu(case)
    y = lora_linear(case.x, case.w, case.a_pool, case.b_pool, case.s, case.tiles, w_scale=scale.cuda())
    assert error(y.cpu(), truth) <= LIMITS[torch.bfloat16]


def test_merge_against_fp64():
    import kaito_runtime.kernels.ops  # noqa: F401  (registers)
    from kaito_runtime.kernels.merge import merge_reference

    case = big_case(16, 1024, 1536, torch.bfloat16)
    factors = torch.rand(case.tiles.pages.shape[0])
    truth = merge_reference(case.w, case.a_pool, case.b_pool, case.tiles.pages, factors.double())
    case = on_gpu(case)
    merged = torch.ops.kaito.merge(case.w, case.a_pool, case.b_pool, case.tiles.pages, factors.cuda())
    assert error(merged.cpu(), truth) <= LIMITS[torch.bfloat16]


@pytest.mark.parametrize("tokens", [1, 100, 3000])
@pytest.mark.parametrize("tail_pages", [0, 8])
def test_a_whole_layer_through_the_dispatch(tokens, tail_pages):
    from kaito_runtime.lora import inject_lora
    from kaito_runtime.lora.records import AdapterWeights, LoraMatrix

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1024, 768, dtype=torch.bfloat16, device="cuda"))
    weight, bias = model[0].weight.detach().double().cpu(), model[0].bias.detach().double().cpu()
    matrix = LoraMatrix(torch.randn(40, 1024) / 32, torch.randn(768, 40) / 6, 0.5)
    lora = inject_lora(model, max_pages=8, tail_pages=tail_pages)
    version = lora.bank.load(AdapterWeights("a", "sha256:0", {"0": matrix}))
    lora.routing.set([(tokens, {version: -1.5})])
    x = torch.randn(1, tokens, 1024, dtype=torch.bfloat16, device="cuda")
    with torch.no_grad():
        y = model(x)[0].cpu()
    flat = x[0].double().cpu()
    a, b = matrix.a.bfloat16().double(), matrix.b.bfloat16().double()
    assert error(y, flat @ weight.t() + bias - 0.75 * (flat @ a.t()) @ b.t()) <= LIMITS[torch.bfloat16]
