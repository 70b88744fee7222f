"""A step for the kernels: for each set of scalings, the live pages of each tile of tokens and one strength per token
and adapter, in device memory at fixed addresses."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kaito_runtime.kernels.launch import block_t, cdiv, next_power_of_2
from kaito_runtime.kernels.tiles import Tiles
from kaito_runtime.lora.bank import Bank
from kaito_runtime.lora.records import AdapterVersion, ScalingTable, Span
from kaito_runtime.lora.step import Step

__all__ = ["PagedStep", "PagedWork", "TableMemory"]


class TableMemory:
    """Device memory for the tables of `PagedStep`: for one shape always at one address, as CUDA graphs need."""

    LARGEST = 256  # tokens; larger steps are prefill, whose shapes hardly repeat

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[tuple[int, ...], Tensor] = {}

    def upload(
        self, place: int, s: Tensor, lists: Sequence[Sequence[int] | Tensor], lengths: Sequence[int]
    ) -> list[Tensor]:
        """Copies a strength table and int32 lists to the device in one piece.

        Args:
            place: Number of the table within the step, since several are alive at once.
            s: `[T, A]` fp32.
            lists: Integers.
            lengths: Room for each list; the views have these lengths.

        Returns:
            The table, then the lists, each aligned to 16 bytes.
        """
        parts = [s.flatten().view(torch.int32), *(torch.as_tensor(part, dtype=torch.int32) for part in lists)]
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
    """What the kernels read in the layers of one scaling table.

    Attributes:
        s: `[T, A]` fp32, strength * scaling of each live adapter; A is rounded up to a power of two.
        tiles: The live pages of each tile of tokens, and the live tokens.
        pages: How many pages are live in the step.
        all_live: Every token has a live adapter.
        checked: Shapes and dtypes of layers whose arguments were checked with these tables.
    """

    s: Tensor
    tiles: Tiles
    pages: int
    all_live: bool
    checked: set[tuple[object, ...]] = field(default_factory=set)


class PagedStep(Step):
    """A step for the kernels."""

    def __init__(self, spans: Sequence[Span], bank: Bank, memory: TableMemory, itemsize: int) -> None:
        super().__init__(spans, bank)
        self._memory = memory
        self._block_t = block_t(self.tokens, itemsize)
        self._work: dict[ScalingTable, PagedWork | None] = {}

    def work(self, scalings: ScalingTable) -> PagedWork | None:
        """Returns what layers with these scalings add, None for nothing; computed when the first of them asks."""
        if scalings not in self._work:
            self._work[scalings] = self._plan(scalings)
        return self._work[scalings]

    def _plan(self, scalings: ScalingTable) -> PagedWork | None:
        rows = list(self._live(scalings))
        if not rows:
            return None
        versions = self._ordered({version for row in rows for version in row.factors})
        column = {version: i for i, version in enumerate(versions)}
        of_tile: list[set[AdapterVersion]] = [set() for _ in range(cdiv(self.tokens, self._block_t))]
        s = torch.zeros(self.tokens, next_power_of_2(len(versions)))
        live = torch.zeros(self.tokens, dtype=torch.int32)
        for row in rows:
            for tile in range(row.first // self._block_t, cdiv(row.first + row.tokens, self._block_t)):
                of_tile[tile].update(row.factors)
            here = slice(row.first, row.first + row.tokens)
            live[here] = 1
            for version, factor in row.factors.items():
                s[here, column[version]] = factor
        entries = [[(page, column[v]) for v in self._ordered(of_one) for page in self._pages[v]] for of_one in of_tile]
        start = [0]
        for of_one in entries:
            start.append(start[-1] + len(of_one))
        flat = [entry for of_one in entries for entry in of_one]
        # Powers of two: grids, strides and addresses take few values, and programs beyond a tile's list end at once.
        width = next_power_of_2(max(map(len, entries)))
        table, starts, pages, adapters, rows_live = self._memory.upload(
            len(self._work),
            s,
            (start, [page for page, _ in flat], [adapter for _, adapter in flat], live),
            (len(start), width * len(entries), width * len(entries), self.tokens),
        )
        return PagedWork(
            s=table,
            tiles=Tiles(starts, pages, adapters, rows_live, self._block_t, width),
            pages=sum(len(self._pages[version]) for version in versions),
            all_live=sum(row.tokens for row in rows) == self.tokens,
        )
