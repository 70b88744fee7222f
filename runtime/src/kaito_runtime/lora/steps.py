"""One forward pass, as the layers read it: for each profile, the few tensors that say which pages weigh how much on
which token. `CatStep` is for CPUs, `PagedStep` for the kernels; `routing` makes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from kaito_runtime.kernels.dispatch import split_by_set
from kaito_runtime.kernels.launch import block_m, cdiv, next_power_of_2
from kaito_runtime.kernels.tiles import Tiles
from kaito_runtime.lora.bank import Bank
from kaito_runtime.lora.pages import CatPool, RankRows, ranks_of
from kaito_runtime.lora.records import AdapterVersion, Profile, Span

if TYPE_CHECKING:
    from kaito_runtime.lora.layers import LoraLinear

__all__ = ["CatPart", "CatStep", "CatWork", "PagedStep", "PagedWork", "Step", "TableMemory"]


_Rows = tuple[int, int, Mapping[AdapterVersion, float]]  # (first token, tokens, strength * scaling)


class Step:
    """What every kind of step has.

    Attributes:
        tokens: Rows that each layer must see.
        merged: Exactly the strengths of the merged buffers hold for all tokens.
    """

    def __init__(self, spans: Sequence[Span], bank: Bank) -> None:
        self.tokens = sum(tokens for tokens, _ in spans)
        self.merged = False
        self._spans = spans
        # Read now: what is resident when the step is set stays so while its requests run.
        self._pages = {version: bank.pages(version) for _, strengths in spans for version in strengths}

    def _live(self, profile: Profile) -> Iterator[_Rows]:
        """The rows on which anything is live in a layer of this profile."""
        first = 0
        for tokens, strengths in self._spans:
            live = {v: s * profile.scaling[v] for v, s in strengths.items() if v in profile.scaling}
            if live := {v: factor for v, factor in live.items() if factor != 0.0}:
                yield first, tokens, live
            first += tokens

    def _ordered(self, versions: set[AdapterVersion] | frozenset[AdapterVersion]) -> list[AdapterVersion]:
        return sorted(versions, key=lambda version: self._pages[version])


@dataclass(frozen=True, slots=True)
class CatWork:
    """Two products to add in the layers of one profile: some rows of a step with the ranks that are live on them.

    Attributes:
        rows: None for all rows of the step, a slice, or an index tensor `[M]`.
        ranks: Live ranks, R in all.
        s: `[M, R]` or `[1, R]` fp32, strength * scaling; a number where all are the same.
    """

    rows: slice | Tensor | None
    ranks: RankRows
    s: Tensor | float


CatPart = tuple[slice | Tensor | None, Tensor, Tensor, Tensor | float]
"""`CatWork` for one layer: rows, A `[K, R]` and B `[R, N]` of its ranks, s."""


class CatStep(Step):
    """A step for the CPU path: dense tables over the live ranks.

    Attributes:
        parts: What each layer adds that has asked `plan`. All that a layer needs is there at one look: by the time
            that it runs again, all weights have passed through the cache, and each object and each frame on the way
            costs as much as a small product.
    """

    def __init__(self, spans: Sequence[Span], bank: Bank) -> None:
        super().__init__(spans, bank)
        self._rank = {version: bank.rank(version) for version in self._pages}
        self._work: dict[Profile, tuple[CatWork, ...]] = {}
        self.parts: dict[LoraLinear, tuple[CatPart, ...]] = {}

    def plan(self, layer: "LoraLinear") -> tuple[CatPart, ...]:
        """Finds what `layer` adds, for `parts`."""
        pool = cast(CatPool, layer.pool)
        self.parts[layer] = found = tuple(
            (work.rows, *pool.live(work.ranks), work.s) for work in self.work(layer.profile)
        )
        return found

    def work(self, profile: Profile) -> tuple[CatWork, ...]:
        """What a layer of this profile adds; computed when its first layer asks."""
        found = self._work.get(profile)
        if found is None:
            found = self._work[profile] = self._plan(profile)
        return found

    def _plan(self, profile: Profile) -> tuple[CatWork, ...]:
        rows = list(self._live(profile))
        sets: dict[frozenset[AdapterVersion], list[_Rows]] = {}
        for row in rows:
            sets.setdefault(frozenset(row[2]), []).append(row)
        everyone = frozenset().union(*sets)
        costs = [(sum(t for _, t, _ in group), self._count(live)) for live, group in sets.items()]
        groups = sets if split_by_set(costs, self._count(everyone)) else {everyone: rows}
        return tuple(self._group(live, group) for live, group in groups.items() if group)

    def _count(self, versions: frozenset[AdapterVersion]) -> int:
        return sum(len(self._pages[version]) for version in versions)

    def _group(self, live: frozenset[AdapterVersion], group: Sequence[_Rows]) -> CatWork:
        versions = self._ordered(live)
        ranks = tuple(part for version in versions for part in ranks_of(self._pages[version], self._rank[version]))
        factors = [[of_row.get(version, 0.0) for version in versions] for _, _, of_row in group]
        return CatWork(self._rows(group), ranks, self._table(versions, factors, [tokens for _, tokens, _ in group]))

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

    def _rows(self, group: Sequence[_Rows]) -> slice | Tensor | None:
        first, last = group[0][0], group[-1][0] + group[-1][1]
        count = sum(tokens for _, tokens, _ in group)
        if count == self.tokens:
            return None
        if count == last - first:
            return slice(first, last)
        return torch.cat([torch.arange(start, start + tokens) for start, tokens, _ in group])


class TableMemory:
    """Device memory for the tables of `PagedStep`; for one shape always at one address, as CUDA graphs need."""

    LARGEST = 256  # tokens; larger steps are prefill, whose shapes hardly repeat

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[tuple[int, ...], Tensor] = {}

    def upload(self, place: int, s: Tensor, lists: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Tensor]:
        """Copies a strength table and int32 lists to the device in one piece.

        Args:
            place: Which of a step's tables this is, since several are alive at once.
            s: `[T, slots]` fp32.
            lists: Integers.
            lengths: Room for each list; the views have these lengths.

        Returns:
            The table, then the lists, each aligned to 16 bytes.
        """
        parts = [s.flatten().view(torch.int32), *(torch.tensor(part, dtype=torch.int32) for part in lists)]
        rooms = [s.numel(), *lengths]
        offsets = [0]
        for room in rooms:
            offsets.append(offsets[-1] + cdiv(room, 4) * 4)
        host = torch.zeros(offsets[-1], dtype=torch.int32, pin_memory=self._device.type == "cuda")
        for part, offset in zip(parts, offsets, strict=False):
            host[offset : offset + part.numel()] = part
        key = (place, *s.shape, *lengths)
        if key not in self._held:
            device_copy = torch.empty_like(host, device=self._device)
            if s.shape[0] <= self.LARGEST:
                self._held[key] = device_copy
        else:
            device_copy = self._held[key]
        device_copy.copy_(host, non_blocking=True)  # in the stream's order: after the step that still reads it
        views = [device_copy[offset : offset + room] for room, offset in zip(rooms, offsets, strict=False)]
        return [views[0].view(torch.float32).view(s.shape), *views[1:]]


@dataclass(frozen=True, slots=True)
class PagedWork:
    """What the kernels need for one step.

    Attributes:
        s: `[T, slots]` fp32, strength * scaling; one slot per live adapter.
        tiles: The live pages of each tile of tokens.
        pages: Live pages of the whole step, by slot.
        mixes: Different sets of live adapters among the tokens, the empty one included.
    """

    s: Tensor
    tiles: Tiles
    pages: tuple[int, ...]
    mixes: int


class PagedStep(Step):
    """A step for the kernels: a list of live pages per tile of tokens, and one strength per token and adapter."""

    def __init__(self, spans: Sequence[Span], bank: Bank, memory: TableMemory, itemsize: int) -> None:
        super().__init__(spans, bank)
        self._memory = memory
        self._block_m = block_m(self.tokens, itemsize)
        self._work: dict[Profile, PagedWork | None] = {}

    def work(self, profile: Profile) -> PagedWork | None:
        """What a layer of this profile adds, or None; computed when its first layer asks."""
        if profile not in self._work:
            self._work[profile] = self._plan(profile)
        return self._work[profile]

    def _plan(self, profile: Profile) -> PagedWork | None:
        rows = list(self._live(profile))
        if not rows:
            return None
        versions = self._ordered({version for _, _, live in rows for version in live})
        slots = {version: slot for slot, version in enumerate(versions)}
        of_tile: list[set[AdapterVersion]] = [set() for _ in range(cdiv(self.tokens, self._block_m))]
        for first, tokens, live in rows:
            for tile in range(first // self._block_m, cdiv(first + tokens, self._block_m)):
                of_tile[tile].update(live)
        entries = [[(page, slots[v]) for v in self._ordered(live) for page in self._pages[v]] for live in of_tile]
        start = [0]
        for of_one in entries:
            start.append(start[-1] + len(of_one))
        flat = [entry for of_one in entries for entry in of_one]
        # Powers of two: grids, strides and addresses take few values, and programs beyond a tile's list end at once.
        width = next_power_of_2(max(map(len, entries)))
        s = torch.zeros(self.tokens, next_power_of_2(len(versions)))
        for first, tokens, live in rows:
            for version, factor in live.items():
                s[first : first + tokens, slots[version]] = factor
        table, starts, pages, of_slot = self._memory.upload(
            len(self._work),
            s,
            (start, [page for page, _ in flat], [slot for _, slot in flat]),
            (len(start), width * len(entries), width * len(entries)),
        )
        return PagedWork(
            s=table,
            tiles=Tiles(starts, pages, of_slot, self._block_m, width),
            pages=tuple(page for version in versions for page in self._pages[version]),
            mixes=len({frozenset(live) for _, _, live in rows}) + (sum(n for _, n, _ in rows) < self.tokens),
        )
