"""Launches per layer, and that neither token counts nor strengths ever make a new binary."""

import pytest
import torch
from torch import nn
from triton.runtime.errors import OutOfResources

from kaito_runtime.kernels.dispatch import PAIR_TOKENS_PDL
from kaito_runtime.kernels.gemm_expand import gemm_expand
from kaito_runtime.kernels.launch import ExpandBlocks, cdiv
from kaito_runtime.kernels.paged import paged_linear
from kaito_runtime.kernels.tiles import Tiles
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.lora.records import AdapterWeights, LoraMatrix
from kaito_runtime.lora.warmup import warm_kernels

K, N = 576, 192


@pytest.fixture
def adapted(recorder):
    """One layer, three adapters of ranks 8, 40 and 256."""
    model = nn.Sequential(nn.Linear(K, N, bias=False, dtype=torch.bfloat16))
    lora = inject_lora(model, paged=True, max_pages=20)
    versions = []
    for rank in (8, 40, 256):
        matrix = LoraMatrix(torch.randn(rank, K) / 100, torch.randn(N, rank) / 100, 2.0)
        versions.append(lora.bank.load(AdapterWeights(f"r{rank}", "sha256:0", {"0": matrix})))
    recorder.events.clear()
    return model, lora, versions


def step(adapted, recorder, spans):
    model, lora, _ = adapted
    lora.routing.set(spans)
    x = torch.zeros(1, sum(tokens for tokens, _ in spans), K, dtype=torch.bfloat16)
    if lora.routing.step is not None:
        lora.routing.step.work(lora.layers["0"].scalings)  # the table is made once per step, not per layer
    recorder.events.clear()
    model(x)
    return list(recorder.launches)


@pytest.mark.parametrize("tokens", [1, 8, 16, 40, 256, 1024])
def test_two_launches_with_adapters(adapted, recorder, tokens):
    one, two, _ = adapted[2]
    launches = step(adapted, recorder, [(tokens, {one: 1.0, two: -0.5})])
    assert [launch.kernel for launch in launches] == ["shrink_kernel", "gemm_expand_kernel"]


def test_no_launch_of_ours_without_adapters(adapted, recorder):
    one = adapted[2][0]
    for spans in ([(8, {})], [(8, {one: 0.0})]):
        assert step(adapted, recorder, spans) == []
        assert sum("mm" in str(event) for event in recorder.events) == 1, "the plain product, once"


@pytest.mark.parametrize("tokens", [2, 16, 40, PAIR_TOKENS_PDL + 1])
def test_steps_with_base_rows_use_the_librarys_product_and_two_launches(adapted, recorder, tokens):
    launches = step(adapted, recorder, [(tokens - 1, {adapted[2][0]: 1.0}), (1, {})])
    assert [launch.kernel for launch in launches] == ["shrink_kernel", "expand_add_kernel"]
    assert sum("mm" in str(event) for event in recorder.events) == 1


def test_large_steps_use_the_librarys_product_and_two_launches(adapted, recorder):
    one, two, _ = adapted[2]
    tokens = PAIR_TOKENS_PDL + 1
    launches = step(adapted, recorder, [(tokens - 5, {one: 1.0}), (5, {two: 1.0})])
    assert [launch.kernel for launch in launches] == ["shrink_kernel", "expand_add_kernel"]
    assert sum("mm" in str(event) for event in recorder.events) == 1


@pytest.mark.parametrize("base_rows", [0, 1])
def test_the_second_launch_alone_is_dependent_and_nothing_comes_between(adapted, recorder, base_rows):
    launches = step(adapted, recorder, [(4, {adapted[2][1]: 1.0}), (base_rows, {})])
    assert [launch.pdl for launch in launches] == [False, True]
    first, second = (recorder.events.index(launch) for launch in launches)
    between = set(recorder.events[first + 1 : second])
    assert between <= {"aten.empty.memory_format"}, "memory for y is all that may be asked for"


@pytest.mark.parametrize("base_rows", [0, 1])
def test_one_binary_over_tokens_strengths_and_adapters(adapted, recorder, base_rows):
    one, two, three = adapted[2]
    binaries = set()
    for tokens in range(1, 17 - base_rows):
        for strengths in ({one: 1.0}, {one: -0.25, two: 7.5}, {three: 1e-3}, {one: 1.0, two: 1.0, three: 1.0}):
            spans = [(tokens, strengths)] if tokens == 1 else [(1, {two: 0.3}), (tokens - 1, strengths)]
            launches = step(adapted, recorder, [*spans, (base_rows, {})])
            binaries |= {(launch.kernel, launch.binary) for launch in launches}
    assert len(binaries) == 2, "one of each kernel"


@pytest.mark.parametrize(("low", "high"), [(17, 64), (65, 256)])
def test_one_binary_per_tile_size(adapted, recorder, low, high):
    one, two, _ = adapted[2]
    binaries = set()
    for tokens in {low, low + 1, (low + high) // 2, high - 1, high}:
        for strengths in ({one: 1.0}, {two: -3.0}):
            binaries |= {launch.binary for launch in step(adapted, recorder, [(tokens, strengths)])}
    assert len(binaries) == 2


def test_the_grid_covers_tokens_ranks_and_planes(adapted, recorder):
    one, two, three = adapted[2]
    shrink, expand = step(adapted, recorder, [(5, {one: 1.0, two: 1.0, three: 1.0})])
    # 1 + 3 + 16 pages, rounded to 32 so that the grid takes few sizes; 4 pages per program; 4 planes.
    assert shrink.grid == (1, 32 // 4, 4)
    assert expand.grid == (1, N // 32, 1)


def test_too_much_shared_memory_is_found_before_a_launch(recorder):
    lists = [torch.zeros(size, dtype=torch.int32) for size in (2, 0, 0, 4)]
    x, w = torch.zeros(4, 256, dtype=torch.bfloat16), torch.zeros(512, 256, dtype=torch.bfloat16)
    u, b_pool = torch.zeros(1, 4, 16), torch.zeros(1, 512, 16, dtype=torch.bfloat16)
    blocks = ExpandBlocks(16, 512, 128, 4, 5)
    with pytest.raises(OutOfResources, match="shared memory"):
        gemm_expand(x, w, u, b_pool, Tiles(*lists, 16, 1), blocks=blocks)
    assert recorder.launches == []


# (K, N): SmolLM2, Falcon-7B with its fused QKV, Falcon-40B, Llama 2 7B and Llama 3 8B.
SHAPES = [
    *[(576, 576), (576, 192), (576, 1536), (1536, 576)],
    *[(4544, 4672), (4544, 4544), (4544, 18176), (18176, 4544)],
    *[(8192, 9216), (8192, 8192), (8192, 32768), (32768, 8192)],
    *[(4096, 4096), (4096, 1024), (4096, 11008), (11008, 4096), (4096, 14336), (14336, 4096)],
]


def test_the_shapes_of_real_models_share_their_binaries(recorder):
    binaries = set()
    lists = [torch.tensor(values, dtype=torch.int32) for values in ([0, 2], [1, 0], [0, 1], [1] * 8)]
    s = torch.zeros(8, 2)
    for k, n in SHAPES:
        x, w, a_pool, b_pool = (
            torch.empty(size, dtype=torch.bfloat16) for size in ((8, k), (n, k), (32, k), (2, n, 16))
        )
        recorder.events.clear()
        paged_linear(x, w, a_pool, b_pool, s, Tiles(*lists, 16, 2))
        shrink, expand = recorder.launches
        assert expand.grid == (1, cdiv(n, 32), 1)
        binaries |= {(shrink.kernel, shrink.binary), (expand.kernel, expand.binary)}
    assert len(binaries) == 4, "of each kernel one for K in multiples of 128 and one for the others"


@pytest.mark.parametrize("base_rows", [0, 1])
def test_arguments_are_checked_once_for_all_layers_of_one_kind(recorder, monkeypatch, base_rows):
    from kaito_runtime.kernels import expand_add, gemm_expand, shrink

    checks = []
    for module in (shrink, gemm_expand, expand_add):
        real = module._check
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "_check", lambda *args, name=name, real=real: (checks.append(name), real(*args)))
    model = nn.Sequential(*(nn.Linear(K, K, bias=False, dtype=torch.bfloat16) for _ in range(12)))
    lora = inject_lora(model, paged=True, max_pages=2)
    matrices = {str(i): LoraMatrix(torch.randn(8, K), torch.randn(K, 8), 1.0) for i in range(12)}
    version = lora.bank.load(AdapterWeights("a", "", matrices))
    lora.routing.set([(4, {version: 1.0}), (base_rows, {})])
    x = torch.zeros(1, 4 + base_rows, K, dtype=torch.bfloat16)
    for _ in range(3):
        model(x)
    assert len(recorder.launches) == 3 * 12 * 2
    assert checks == ["shrink", "expand_add" if base_rows else "gemm_expand"], "in one layer of one of the steps"
    lora.routing.set([(3, {version: 1.0}), (base_rows, {})])
    model(x[:, 1:])
    assert len(checks) == 4, "other tables are checked again"


def test_narrow_layers_with_a_long_k_leave_the_base_product_to_the_library(recorder):
    model = nn.Sequential(nn.Linear(4096, 1024, bias=False, dtype=torch.bfloat16))
    lora = inject_lora(model, paged=True, max_pages=2)
    matrix = LoraMatrix(torch.randn(8, 4096), torch.randn(1024, 8), 1.0)
    version = lora.bank.load(AdapterWeights("a", "", {"0": matrix}))
    lora.routing.set([(1, {version: 1.0})])
    recorder.events.clear()
    model(torch.zeros(1, 1, 4096, dtype=torch.bfloat16))
    assert [launch.kernel for launch in recorder.launches] == ["shrink_kernel", "expand_add_kernel"]


@pytest.mark.parametrize("step_tokens", [16, 512])
def test_after_the_warm_up_no_step_has_a_new_binary(recorder, step_tokens):
    """Layers of several shapes, with and without bias, under traffic of every kind."""
    layers = [nn.Linear(K, N, bias=False), nn.Linear(K, 4096), nn.Linear(4544, 1024, bias=False), nn.Linear(4096, K)]
    model = nn.ModuleList(layer.to(torch.bfloat16) for layer in layers)
    lora = inject_lora(model, paged=True, max_pages=24)
    assert warm_kernels(lora, step_tokens) == 4 * 2 * (1 if step_tokens == 16 else 3)
    assert lora.bank.resident() == [] and lora.bank.free_pages == 24
    warm = {(launch.kernel, launch.binary) for launch in recorder.launches}
    versions = [
        lora.bank.load(
            AdapterWeights(
                f"r{rank}",
                "",
                {p: LoraMatrix(torch.zeros(rank, k), torch.zeros(n, rank), 1.0) for p, (k, n) in shapes(lora)},
            )
        )
        for rank in (8, 40, 200)
    ]
    recorder.events.clear()
    for tokens in {1, 5, 16, min(33, step_tokens), min(100, step_tokens), step_tokens}:
        for live in ([0], [1, 2], [0, 1, 2]):
            for base_rows in (0, 1, 7):
                if base_rows >= tokens:
                    continue
                lora.routing.set([(base_rows, {}), (tokens - base_rows, {versions[i]: 0.5 + i for i in live})])
                for layer in lora.layers.values():
                    layer(torch.zeros(1, tokens, layer.in_features, dtype=torch.bfloat16))
    assert recorder.launches
    assert {(launch.kernel, launch.binary) for launch in recorder.launches} <= warm


def shapes(lora):
    return [(path, layer.lora_shape) for path, layer in lora.layers.items()]
