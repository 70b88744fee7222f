"""The kernels on a GPU, side by side with cuBLAS alone, PEFT's loop, and shrink, product and expand as three launches.

Each variant runs in a CUDA graph over weights larger than L2, so that neither Python nor the cache favours one.
Prints measured microseconds per layer and ratios to cuBLAS, beside what `roofline` predicts for an H100.

    python runtime/bench/bench_gpu.py [--repetitions 50]
"""

import argparse
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from roofline import H100, Layer, overhead
from torch import Tensor

from kaito_runtime.kernels.dispatch import Base, Path, choose
from kaito_runtime.kernels.launch import PAGE, block_t, cdiv
from kaito_runtime.kernels.paged import paged_add_, paged_linear
from kaito_runtime.kernels.tiles import Tiles

SHAPES = ((576, 576), (4096, 4096), (4096, 14336), (14336, 4096))
TOKENS = (1, 8, 16, 64, 256, 512, 2048)
MIXES = ((1, 16), (4, 16), (8, 32))  # adapters, rank
COPIES_BYTES = 256 * 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=50)
    repetitions = parser.parse_args().repetitions
    if not torch.cuda.is_available():
        print("skipped: torch.cuda.is_available() is false; nothing was measured")
        return 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16, medians of {repetitions} graph replays")
    print("    K     N  tokens  adapters  path  cuBLAS us    ours  three launches  PEFT's loop   H100 predicted (ours)")
    for k, n in SHAPES:
        for tokens in TOKENS:
            for adapters, rank in MIXES:
                row(k, n, tokens, adapters, rank, repetitions)
    return 0


def row(k: int, n: int, tokens: int, adapters: int, rank: int, repetitions: int) -> None:
    torch.manual_seed(0)
    copies = max(2, min(64, COPIES_BYTES // (k * n * 2)))
    options = {"device": "cuda", "dtype": torch.bfloat16}
    x = torch.randn(tokens, k, **options)
    weights = torch.randn(copies, n, k, **options) / k**0.5
    per_adapter = cdiv(rank, PAGE)
    pages = adapters * per_adapter
    a_pool = torch.randn(copies, pages * PAGE, k, **options) / k**0.5
    b_pool = torch.randn(copies, pages, n, PAGE, **options) / rank**0.5
    s = torch.rand(tokens, adapters, device="cuda")
    tile = block_t(tokens, 2)
    tiles = Tiles(
        torch.arange(cdiv(tokens, tile) + 1, device="cuda", dtype=torch.int32) * pages,
        torch.arange(pages, device="cuda", dtype=torch.int32).repeat(cdiv(tokens, tile)),
        (torch.arange(pages, device="cuda", dtype=torch.int32) // per_adapter).repeat(cdiv(tokens, tile)),
        torch.ones(tokens, device="cuda", dtype=torch.int32),
        tile,
        pages,
    )
    capability = torch.cuda.get_device_capability()
    path = choose(tokens=tokens, pages=pages, all_live=True, pdl=capability >= (9, 0), base=Base.DENSE, k=k, n=n)
    a_of = a_pool.view(copies, adapters, per_adapter * PAGE, k)
    b_of = b_pool.view(copies, adapters, per_adapter, n, PAGE).transpose(2, 3).reshape(copies, adapters, n, -1)
    b_cat = b_pool.transpose(1, 2).reshape(copies, n, -1)
    ranks_s = s.repeat_interleave(per_adapter * PAGE, 1).bfloat16()

    def ours(i: int) -> Tensor:
        if path is Path.PAIR:
            return paged_linear(x, weights[i], a_pool[i], b_pool[i], s, tiles)
        return paged_add_(F.linear(x, weights[i]), x, a_pool[i], b_pool[i], s, tiles)

    def three(i: int) -> Tensor:
        return F.linear(x, weights[i]).addmm_(F.linear(x, a_pool[i]) * ranks_s, b_cat[i].t())

    def loop(i: int) -> Tensor:
        y = F.linear(x, weights[i])
        for j in range(adapters):
            y = y + F.linear(F.linear(x, a_of[i, j]), b_of[i, j]) * s[:, j, None].bfloat16()
        return y

    variants: dict[str, Callable[[int], Tensor]] = {
        "base": lambda i: F.linear(x, weights[i]),
        "ours": ours,
        "three": three,
        "loop": loop,
    }
    off = (ours(0).float() - three(0).float()).abs().max() / three(0).float().abs().max()
    assert off < 2e-2, f"ours and three launches differ by {off:.1e} of the largest value"
    took = {name: microseconds(run, copies, repetitions) for name, run in variants.items()}
    predicted = overhead(H100, path, Layer(tokens, n, k, pages * PAGE))
    print(
        f"{k:5} {n:5}  {tokens:6}  {adapters:2} x {rank:3}  {path.name:4}  {took['base']:9.1f}  "
        f"{took['ours'] / took['base']:6.3f}  {took['three'] / took['base']:14.3f}  {took['loop'] / took['base']:11.3f}"
        f"   {1 + predicted:6.3f}"
    )


def microseconds(run: Callable[[int], Tensor], copies: int, repetitions: int) -> float:
    """Median per call, from replays of one graph that goes through all copies of the weights."""
    run(0)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(copies):
            run(i)
    took = []
    for _ in range(repetitions):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        took.append(start.elapsed_time(end) * 1e3 / copies)
    return sorted(took)[len(took) // 2]


if __name__ == "__main__":
    sys.exit(main())
