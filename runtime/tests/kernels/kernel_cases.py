"""Random inputs of the kernels as a server has them: mixed ranks on scattered pages, NaN wherever nobody may look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kaito_runtime.kernels.launch import PAGE, cdiv
from kaito_runtime.kernels.tiles import Tiles

NAN = float("nan")


@dataclass
class Case:
    x: Tensor
    w: Tensor
    a_pool: Tensor
    b_pool: Tensor
    s: Tensor
    tiles: Tiles
    # The plain truth, without pages: (a [r, K], b [N, r]) per adapter.
    adapters: list[tuple[Tensor, Tensor]]

    def truth(self) -> Tensor:
        y = self.x.double() @ self.w.double().t()
        for i, (a, b) in enumerate(self.adapters):
            y += self.s[:, i, None].double() * (self.x.double() @ a.double().t()) @ b.double().t()
        return y

    def without_adapters(self) -> Tiles:
        t = self.tiles
        return replace(t, start=torch.zeros_like(t.start), live=torch.zeros_like(t.live))


def make_case(
    *,
    ranks: Sequence[int],
    spans: Sequence[tuple[int, Mapping[int, float]]],
    k: int,
    n: int,
    dtype: torch.dtype = torch.float32,
    block_t: int = 16,
    spare_pages: int = 3,
    seed: int = 0,
    extra_width: int = 0,
) -> Case:
    """`spans` are (tokens, {adapter: strength}); a page is live on a tile where some token of it names its adapter."""
    g = torch.Generator().manual_seed(seed)
    t = sum(tokens for tokens, _ in spans)
    owned = [cdiv(r, PAGE) for r in ranks]
    numbers = torch.randperm(sum(owned) + spare_pages, generator=g).tolist()
    a_pool = torch.full(((len(numbers)) * PAGE, k), NAN, dtype=dtype)
    b_pool = torch.full((len(numbers), n, PAGE), NAN, dtype=dtype)
    pages, adapters = [], []
    for r, count in zip(ranks, owned, strict=True):
        mine, numbers = numbers[:count], numbers[count:]
        a = torch.zeros(count * PAGE, k, dtype=dtype)
        b = torch.zeros(n, count * PAGE, dtype=dtype)
        a[:r] = torch.randn(r, k, generator=g).to(dtype) / k**0.5
        b[:, :r] = torch.randn(n, r, generator=g).to(dtype) / r**0.5
        for j, page in enumerate(mine):
            a_pool[page * PAGE : (page + 1) * PAGE] = a[j * PAGE : (j + 1) * PAGE]
            b_pool[page] = b[:, j * PAGE : (j + 1) * PAGE]
        pages.append(mine)
        adapters.append((a[:r], b[:, :r]))
    s = torch.zeros(t, max(len(ranks), 1))
    live: list[set[int]] = [set() for _ in range(cdiv(t, block_t))]
    row = 0
    for tokens, strengths in spans:
        for adapter, strength in strengths.items():
            s[row : row + tokens, adapter] = strength
            for tile in range(row // block_t, cdiv(row + tokens, block_t)):
                live[tile].add(adapter)
        row += tokens
    entries = [[(page, adapter) for adapter in sorted(of_tile) for page in pages[adapter]] for of_tile in live]
    start = [0]
    for of_tile in entries:
        start.append(start[-1] + len(of_tile))
    flat = [entry for of_tile in entries for entry in of_tile]
    tiles = Tiles(
        torch.tensor(start, dtype=torch.int32),
        torch.tensor([page for page, _ in flat], dtype=torch.int32),
        torch.tensor([adapter for _, adapter in flat], dtype=torch.int32),
        (s != 0).any(dim=1).int(),
        block_t,
        max((len(of_tile) for of_tile in entries), default=0) + extra_width,
    )
    x = torch.randn(t, k, generator=g).to(dtype)
    w = (torch.randn(n, k, generator=g) / k**0.5).to(dtype)
    return Case(x, w, a_pool, b_pool, s, tiles, adapters)


def error(got: Tensor, truth: Tensor) -> float:
    """Largest error as a part of the largest value."""
    return ((got.double() - truth).abs().max() / truth.abs().max()).item()
