"""Rank pages: how adapters of any rank share memory, and how one layer stores them. Who owns which page is in `bank`.

A page holds 16 ranks of every adapted layer. An adapter of rank r takes ceil(r / 16) pages, with the same numbers in
every layer, so that one short list describes a whole step.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from kaito_runtime.kernels.launch import PAGE

__all__ = ["PAGE", "DensePool", "PageAllocator", "PagedPool", "RankRows", "pages_for", "ranks_of"]

RankRows = tuple[tuple[int, int], ...]
"""Rows of a `DensePool`: [start, end) each."""


def pages_for(rank: int) -> int:
    """Returns the pages that an adapter of `rank` takes."""
    return -(-rank // PAGE)


def ranks_of(pages: Sequence[int], rank: int) -> RankRows:
    """Returns the rows that an adapter of `rank` fills of its pages; the rest of the last page is zeros."""
    return tuple((page * PAGE, page * PAGE + min(PAGE, rank - j * PAGE)) for j, page in enumerate(pages))


class PageAllocator:
    """Hands out page numbers below `limit`, lowest first and side by side where possible."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free = list(range(limit))

    @property
    def free(self) -> int:
        """The number of free pages."""
        return len(self._free)

    def take(self, count: int) -> tuple[int, ...] | None:
        """Returns `count` pages in ascending order, or None if there are not enough."""
        if count > len(self._free):
            return None
        runs = (i for i in range(len(self._free) - count + 1) if self._free[i + count - 1] - self._free[i] == count - 1)
        start = next(runs, 0)  # pages side by side save the CPU path a gather; scattered ones work as well
        taken = self._free[start : start + count]
        del self._free[start : start + count]
        return tuple(taken)

    def give_back(self, pages: Sequence[int]) -> None:
        """Frees pages that `take` returned."""
        self._free = sorted([*self._free, *pages])


class DensePool:
    """One layer's pages for the CPU path: A `[P*16, K]` and B transposed `[P*16, N]`, fp32, growing with use.

    In this layout B of ranks that lie side by side is a view, ready for a product, and loading writes whole rows. A is
    copied to `[K, R]` when a set of ranks is first live: as a transposed view its product took a third longer, and B as
    `[N, P*16]` up to three times as long. The zeros that pad a page are left out: most adapters have a rank of 16 or
    less, so several of them at once would be mostly zeros.
    """

    CACHED = 8  # sets of live ranks, per layer
    itemsize = 4

    def __init__(self, k: int, n: int, device: torch.device) -> None:
        self.device = device
        self._k, self._n = k, n
        self._a = torch.zeros(0, k, device=device)
        self._b_t = torch.zeros(0, n, device=device)
        self._live: dict[RankRows, tuple[Tensor, Tensor]] = {}

    def write(self, pages: Sequence[int], a: Tensor, b: Tensor) -> None:
        """Copies `a` `[r, K]` and `b` `[N, r]` into `pages`, padded with zeros. No other page changes."""
        self._grow(max(pages) + 1)
        for pool, matrix in ((self._a, a), (self._b_t, b.t())):
            for j, page in enumerate(pages):
                part = matrix[j * PAGE : (j + 1) * PAGE]
                rows = pool[page * PAGE : (page + 1) * PAGE]
                rows[: len(part)] = part
                rows[len(part) :] = 0
        self._live.clear()  # a gathered copy may be of a page that had another owner

    def read(self, pages: Sequence[int], rank: int) -> tuple[Tensor, Tensor]:
        """Returns copies of A `[r, K]` and B `[N, r]` in `pages`, for `write`."""
        rows = [pool[start:end] for pool in (self._a, self._b_t) for start, end in ranks_of(pages, rank)]
        half = len(rows) // 2
        return torch.cat(rows[:half]), torch.cat(rows[half:]).t()

    def live(self, ranks: RankRows) -> tuple[Tensor, Tensor]:
        """Returns A `[K, R]` and B `[R, N]` of these R ranks, for `dense_add_`."""
        found = self._live.get(ranks)
        if found is None:
            found = self._gather(ranks)
            if len(self._live) >= self.CACHED:
                self._live.pop(next(iter(self._live)), None)
            self._live[ranks] = found
        return found

    def _gather(self, ranks: RankRows) -> tuple[Tensor, Tensor]:
        first, last = ranks[0][0], ranks[-1][1]
        if all(end == start for (_, end), (start, _) in pairwise(ranks)):
            return self._a[first:last].t().contiguous(), self._b_t[first:last]
        rows = torch.cat([torch.arange(start, end) for start, end in ranks]).to(self._a.device)
        return self._a[rows].t().contiguous(), self._b_t[rows]

    def _grow(self, pages: int) -> None:
        held = self._a.shape[0] // PAGE
        if pages <= held:
            return
        # New tensors, then two swaps: a forward pass on another thread sees old or new, and both hold its pages.
        ranks = max(pages, held + held // 4) * PAGE
        a, b_t = self._a.new_zeros(ranks, self._k), self._b_t.new_zeros(ranks, self._n)
        a[: len(self._a)] = self._a
        b_t[: len(self._b_t)] = self._b_t
        self._a, self._b_t = a, b_t


class PagedPool:
    """One layer's pages for the kernels: A `[P*16, K]` and B `[P, N, 16]`, in the dtype of the activations.

    Allocated once, by `reserve` or when the first adapter targets the layer: addresses never change, as CUDA graphs
    need.
    """

    def __init__(self, k: int, n: int, pages: int, device: torch.device, dtype: torch.dtype) -> None:
        self.itemsize = dtype.itemsize
        self.dtype = dtype
        self.device = device
        self._k, self._n, self._pages = k, n, pages
        self._pools: tuple[Tensor, Tensor] | None = None

    def reserve(self, pages: int) -> None:
        """Takes the memory of `pages` pages now, so that nothing else can have it when adapters come.

        Raises:
            ValueError: There are pools already.
        """
        if self._pools is not None:
            raise ValueError("the pools are allocated already")
        self._pages = pages
        _ = self.pools

    @property
    def pools(self) -> tuple[Tensor, Tensor]:
        """(A pool, B pool)."""
        if self._pools is None:
            self._pools = (
                torch.zeros(self._pages * PAGE, self._k, device=self.device, dtype=self.dtype),
                torch.zeros(self._pages, self._n, PAGE, device=self.device, dtype=self.dtype),
            )
        return self._pools

    def read(self, pages: Sequence[int], rank: int) -> tuple[Tensor, Tensor]:
        """Returns copies of A `[r, K]` and B `[N, r]` in `pages`, in main memory, for `write`."""
        a_pool, b_pool = self.pools
        a = torch.cat([a_pool[page * PAGE : (page + 1) * PAGE] for page in pages])[:rank]
        b = torch.cat([b_pool[page] for page in pages], dim=1)[:, :rank]
        return a.cpu(), b.cpu()

    def write(self, pages: Sequence[int], a: Tensor, b: Tensor) -> None:
        """Copies `a` `[r, K]` and `b` `[N, r]` into `pages`, padded with zeros. No other page changes."""
        a_pool, b_pool = self.pools
        for j, page in enumerate(pages):
            ranks = slice(j * PAGE, (j + 1) * PAGE)
            part_a, part_b = a[ranks], b[:, ranks]
            rows = a_pool[page * PAGE : (page + 1) * PAGE]
            rows[: len(part_a)] = part_a
            rows[len(part_a) :] = 0
            b_pool[page, :, : part_b.shape[1]] = part_b
            b_pool[page, :, part_b.shape[1] :] = 0
