"""The kernels on a real GPU: tensor cores' numerics, determinism, CUDA graphs, races. Skipped where there is none.

python -m pytest runtime/tests/kernels/test_gpu.py
"""

import pytest
import torch
from kernel_cases import Case, error, make_case
from torch import nn

from kaito_runtime.kernels.launch import block_t
from kaito_runtime.kernels.paged import paged_add_, paged_linear
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.lora.records import AdapterWeights, LoraMatrix

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
    case.tiles = type(t)(t.start.cuda(), t.pages.cuda(), t.adapters.cuda(), t.live.cuda(), t.block_t, t.width)
    return case


def big_case(tokens: int, k: int, n: int, dtype: torch.dtype) -> Case:
    first = tokens // 3
    spans = [(first, {0: 0.8, 2: -0.5}), (tokens // 4, {}), (tokens - first - tokens // 4, {1: 1.5})]
    return make_case(
        ranks=[8, 64, 24], spans=spans, k=k, n=n, dtype=dtype, block_t=block_t(tokens, dtype.itemsize), seed=tokens
    )


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("tokens", [1, 7, 16, 33, 64, 100, 256, 700])
@pytest.mark.parametrize(("k", "n"), SHAPES)
def test_pair_against_fp64(dtype, tokens, k, n):
    case = big_case(tokens, k, n, dtype)
    truth = case.truth()
    case = on_gpu(case)
    y = paged_linear(case.x, case.w, case.a_pool, case.b_pool, case.s, case.tiles)
    assert error(y.cpu(), truth) <= LIMITS[dtype]


@pytest.mark.parametrize("tokens", [1, 16, 64, 300, 2048])
def test_add_against_fp64(tokens):
    case = big_case(tokens, 1024, 1536, torch.bfloat16)
    base = (case.x.float() @ case.w.float().t()).bfloat16()
    truth = case.truth() - case.x.double() @ case.w.double().t() + base.double()
    case = on_gpu(case)
    y = paged_add_(base.cuda(), case.x, case.a_pool, case.b_pool, case.s, case.tiles)
    assert error(y.cpu(), truth) <= LIMITS[torch.bfloat16]


def test_the_same_input_gives_the_same_bits():
    """A race would show here too: a gemm_expand that does not wait for shrink reads the planes of the run before."""
    case = on_gpu(big_case(16, 4096, 4096, torch.bfloat16))
    arguments = (case.x, case.w, case.a_pool, case.b_pool)
    first = paged_linear(*arguments, case.s, case.tiles)
    for i in range(200):
        paged_linear(*arguments, case.s * (i + 1), case.tiles)
        assert torch.equal(paged_linear(*arguments, case.s, case.tiles), first)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("tokens", [4, 64, 1500])
def test_base_rows_of_a_mixed_batch_have_the_bits_of_a_batch_without_adapters(dtype, tokens):
    torch.manual_seed(tokens)
    model = nn.Sequential(nn.Linear(4096, 1024, dtype=dtype, device="cuda"))
    x = torch.randn(1, tokens, 4096, dtype=dtype, device="cuda")
    with torch.no_grad():
        base = model(x)[0]
        lora = inject_lora(model, max_pages=8)
        matrix = LoraMatrix(torch.randn(40, 4096) / 64, torch.randn(1024, 40) / 6, 0.5)
        version = lora.bank.load(AdapterWeights("a", "sha256:0", {"0": matrix}))
        lora.routing.set([(tokens // 4, {version: 1.0}), (tokens - tokens // 4, {})])
        mixed = model(x)[0]
    assert torch.equal(mixed[tokens // 4 :].view(torch.uint8), base[tokens // 4 :].view(torch.uint8))
    assert (mixed[: tokens // 4] != base[: tokens // 4]).any(dim=1).all()


def test_a_cuda_graph_replays_with_new_strengths_and_tokens():
    case = make_case(ranks=[8, 64], spans=[(16, {0: 1.0, 1: 1.0})], k=4096, n=4096, dtype=torch.bfloat16)
    case = on_gpu(case)
    arguments = (case.x, case.w, case.a_pool, case.b_pool, case.s, case.tiles)
    paged_linear(*arguments)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = paged_linear(*arguments)
    for factor in (0.5, -2.0, 0.0):
        case.s.fill_(factor)
        case.x.normal_()
        graph.replay()
        assert torch.equal(y, paged_linear(*arguments))


@pytest.mark.parametrize("narrow", [torch.int8, torch.float8_e4m3fn])
def test_quantised_base(narrow):
    if narrow is torch.float8_e4m3fn and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("fp8 weights need sm_90")
    case = big_case(16, 1024, 1536, torch.bfloat16)
    scale = torch.rand(1536) * 0.01 + 0.001
    weight = (case.w.float() / scale[:, None]).clamp(-127, 127).round().to(narrow)
    case.w = weight.float() * scale[:, None]
    truth = case.truth()
    case.w = weight
    case = on_gpu(case)
    y = paged_linear(case.x, case.w, case.a_pool, case.b_pool, case.s, case.tiles, w_scale=scale.cuda())
    assert error(y.cpu(), truth) <= LIMITS[torch.bfloat16]


@pytest.mark.parametrize("tokens", [1, 100, 3000])
def test_a_whole_layer_through_the_dispatch(tokens):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1024, 768, dtype=torch.bfloat16, device="cuda"))
    weight, bias = model[0].weight.detach().double().cpu(), model[0].bias.detach().double().cpu()
    matrix = LoraMatrix(torch.randn(40, 1024) / 32, torch.randn(768, 40) / 6, 0.5)
    lora = inject_lora(model, max_pages=8)
    version = lora.bank.load(AdapterWeights("a", "sha256:0", {"0": matrix}))
    lora.routing.set([(tokens, {version: -1.5})])
    x = torch.randn(1, tokens, 1024, dtype=torch.bfloat16, device="cuda")
    with torch.no_grad():
        y = model(x)[0].cpu()
    flat = x[0].double().cpu()
    a, b = matrix.a.bfloat16().double(), matrix.b.bfloat16().double()
    assert error(y, flat @ weight.t() + bias - 0.75 * (flat @ a.t()) @ b.t()) <= LIMITS[torch.bfloat16]
