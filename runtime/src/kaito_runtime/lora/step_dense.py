"""A step for the CPU path: for each set of scalings, the few products to add and the tokens to add them on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kaito_runtime.kernels.dispatch import split_by_set
from kaito_runtime.lora.bank import Bank
from kaito_runtime.lora.pages import DensePool, RankRows, ranks_of
from kaito_runtime.lora.records import AdapterVersion, ScalingTable, Span
from kaito_runtime.lora.step import LiveRows, Step

__all__ = ["DensePart", "DenseStep", "DenseWork"]


@dataclass(frozen=True, slots=True)
class DenseWork:
    """Two products to add in the layers of one scaling table: some tokens, and the ranks that are live on them.

    Attributes:
        rows: None for all tokens of the step, a slice, or an index tensor.
        ranks: Live ranks, R in all.
        s: `[tokens, R]` or `[1, R]` fp32, strength * scaling; a number where all are the same.
    """

    rows: slice | Tensor | None
    ranks: RankRows
    s: Tensor | float


DensePart = tuple[slice | Tensor | None, Tensor, Tensor, Tensor | float]
"""`DenseWork` in one layer: rows, A `[K, R]` and B `[R, N]` of its ranks, s."""


class DenseStep(Step):
    """A step for the CPU path.

    Attributes:
        parts: What to add, by the pool of each layer that has called `plan`. A layer finds all that it needs in one
            look-up: between two of its calls all weights pass through the cache, so each object and each function call
            on the way costs as much as a small product.
    """

    def __init__(self, spans: Sequence[Span], bank: Bank) -> None:
        super().__init__(spans, bank)
        self._rank = {version: bank.rank(version) for version in self._pages}
        self._work: dict[ScalingTable, tuple[DenseWork, ...]] = {}
        self._together: dict[ScalingTable, DenseWork | None] = {}
        self._mixes: dict[ScalingTable, tuple[DenseWork, ...]] = {}
        self.parts: dict[object, tuple[DensePart, ...]] = {}

    def plan(self, pool: DensePool, scalings: ScalingTable) -> tuple[DensePart, ...]:
        """Returns what the layer with this pool adds, and keeps it in `parts`."""
        self.parts[pool] = found = tuple((work.rows, *pool.live(work.ranks), work.s) for work in self.work(scalings))
        return found

    def work(self, scalings: ScalingTable) -> tuple[DenseWork, ...]:
        """Returns what layers with these scalings add; computed when the first of them asks."""
        found = self._work.get(scalings)
        if found is None:
            found = self._work[scalings] = self._plan(scalings)
        return found

    def together(self, scalings: ScalingTable) -> DenseWork | None:
        """Returns what layers with these scalings add, all adapters at once; None for nothing."""
        if scalings not in self._together:
            rows = list(self._live(scalings))
            everyone = frozenset().union(*(row.factors for row in rows))
            self._together[scalings] = self._group(everyone, rows) if rows else None
        return self._together[scalings]

    def mixes(self, scalings: ScalingTable) -> tuple[DenseWork, ...]:
        """Returns what layers with these scalings add, the tokens of each mix of adapters apart."""
        if scalings not in self._mixes:
            mixes: dict[frozenset[tuple[AdapterVersion, float]], list[LiveRows]] = {}
            for row in self._live(scalings):
                mixes.setdefault(frozenset(row.factors.items()), []).append(row)
            self._mixes[scalings] = tuple(self._group(frozenset(rows[0].factors), rows) for rows in mixes.values())
        return self._mixes[scalings]

    def _plan(self, scalings: ScalingTable) -> tuple[DenseWork, ...]:
        rows = list(self._live(scalings))
        sets: dict[frozenset[AdapterVersion], list[LiveRows]] = {}
        for row in rows:
            sets.setdefault(frozenset(row.factors), []).append(row)
        everyone = frozenset().union(*sets)
        costs = [(sum(row.tokens for row in group), self._count(live)) for live, group in sets.items()]
        groups = sets if split_by_set(costs, self._count(everyone)) else {everyone: rows}
        return tuple(self._group(live, group) for live, group in groups.items() if group)

    def _count(self, versions: frozenset[AdapterVersion]) -> int:
        return sum(len(self._pages[version]) for version in versions)

    def _group(self, live: frozenset[AdapterVersion], group: Sequence[LiveRows]) -> DenseWork:
        versions = self._ordered(live)
        ranks = tuple(part for version in versions for part in ranks_of(self._pages[version], self._rank[version]))
        factors = [[row.factors.get(version, 0.0) for version in versions] for row in group]
        return DenseWork(self._rows(group), ranks, self._table(versions, factors, [row.tokens for row in group]))

    def _table(
        self, versions: Sequence[AdapterVersion], factors: Sequence[Sequence[float]], tokens: Sequence[int]
    ) -> Tensor | float:
        first = factors[0]
        same = all(row == first for row in factors)
        if same and all(factor == first[0] for factor in first):
            return first[0]
        s = torch.tensor(factors[:1] if same else factors)
        if not same:
            s = s.repeat_interleave(torch.tensor(tokens), 0)
        return s.repeat_interleave(torch.tensor([self._rank[version] for version in versions]), 1)

    def _rows(self, group: Sequence[LiveRows]) -> slice | Tensor | None:
        first, last = group[0].first, group[-1].first + group[-1].tokens
        count = sum(row.tokens for row in group)
        if count == self.tokens:
            return None
        if count == last - first:
            return slice(first, last)
        return torch.cat([torch.arange(row.first, row.first + row.tokens) for row in group])
