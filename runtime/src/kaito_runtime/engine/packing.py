"""How a pass over many requests is laid out: cells of the cache, positions of queries, masks.

Which requests those are is decided in `scheduler`; what is computed with it is in `attention`. All integers of a pass
are copied to the device in one piece.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "CacheMemory",
    "Decode",
    "Groups",
    "PackedPlan",
    "PagedDecode",
    "Piece",
    "Prefill",
    "Upload",
    "seen_mask",
]

# Elements of one request's keys from which a CPU attends to them on their own, where they are: the copy that joins them
# with others' would take longer than a call. By length alone: where keys are must not change the last bit.
_ALONE = 16384


class Piece(NamedTuple):
    """One request's part of a packed batch.

    Attributes:
        queries: Number of its tokens in the batch.
        keys: Number of its keys, the new ones included, which are the last.
        blocks: Blocks of the cache that hold its keys, in order; the last may be partly used.
    """

    queries: int
    keys: int
    blocks: Sequence[int]


class CacheMemory:
    """Keys and values of all layers, in cells: one cell holds one token. A block is `block_tokens` cells side by side.

    A layer's memory is made when the layer is first called, which is in the check at the start, in the shapes that it
    has there: some models have other heads or widths in each layer, or narrower values than keys.

    Args:
        blocks: Number of blocks.
        block_tokens: Tokens of one block.
        kernel: Whether answers' next tokens are computed by the kernel, which reads keys where they are: on a GPU.

    Attributes:
        windows: The sliding windows that layers have asked for; None is the whole sequence.
        alone: Number of keys from which an answer's next token is computed on its own; 0 for never.
    """

    def __init__(self, blocks: int, block_tokens: int, *, kernel: bool = False) -> None:
        self.blocks = blocks
        self.block_tokens = block_tokens
        self.kernel = kernel
        self.windows: dict[int | None, None] = {}
        self.alone = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the keys and values of a layer.

        Shapes:
            key: [1, Hkv, Tq, D], value: [1, Hkv, Tq, Dv], the new ones. Returns [cells, Hkv, D], [cells, Hkv, Dv].
        """
        held = self._layers.get(index)
        if held is None:
            cells = self.blocks * self.block_tokens
            if key.device.type == "cpu":
                self.alone = max(self.alone, _ALONE // (key.shape[1] * key.shape[3]))
            keys, values = (
                torch.zeros(cells, new.shape[1], new.shape[3], dtype=new.dtype, device=new.device)
                for new in (key, value)
            )
            held = self._layers[index] = (keys, values)
        return held

    def cells(self, blocks: Sequence[int], first: int, end: int) -> slice | np.ndarray:
        """Returns where the tokens from `first` to before `end` of a sequence are."""
        size = self.block_tokens
        held = list(blocks[first // size : -(-end // size)])
        if held == list(range(held[0], held[0] + len(held))):
            start = held[0] * size + first % size
            return slice(start, start + end - first)
        starts = np.asarray(held) * size
        return np.asarray((starts[:, None] + np.arange(size)).ravel()[first % size :][: end - first])


class Upload:
    """Integers of one pass, copied to the device in one piece, to the same address each time.

    Args:
        device: Where they are needed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host = torch.empty(0, dtype=torch.int64)
        self._there = self._host
        self._copied: torch.cuda.Event | None = None

    def __call__(self, parts: Sequence[np.ndarray]) -> list[Tensor]:
        """Returns the parts on the device, flat. They hold until the next call, in the order of the device's stream."""
        if self._copied is not None:
            self._copied.synchronize()  # a pass that chooses no token is followed by another without a wait
        sizes = [part.size for part in parts]
        total = sum(sizes)
        if total > len(self._host):
            away = self._device.type != "cpu"
            self._host = torch.empty(2 * total, dtype=torch.int64, pin_memory=away)
            self._there = torch.empty_like(self._host, device=self._device) if away else self._host
        np.concatenate([part.ravel() for part in parts], out=self._host.numpy()[:total])
        if self._there is not self._host:
            self._there[:total].copy_(self._host[:total], non_blocking=True)
            self._copied = self._copied or torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        return list(torch.split(self._there[:total], sizes))


@dataclass(frozen=True, slots=True)
class Decode:
    """Requests with one query each, computed as one batch.

    Attributes:
        batch: B, number of requests.
        queries: [B], positions in the packed queries.
        cells: [B * L], cells of their keys in the cache. Shorter requests are padded with their last cell, masked: what
            is in other cells may be no number.
        mask: [B, 1, 1, L], 0 or minus infinity; None where all have L keys.
    """

    batch: int
    queries: Tensor | slice
    cells: Tensor | slice
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class PagedDecode:
    """Requests with one query each, for the kernel.

    Attributes:
        queries: [B], positions in the packed queries.
        table: [B, W], blocks of each.
        lengths: [B], keys of each.
    """

    queries: Tensor | slice
    table: Tensor
    lengths: Tensor


@dataclass(frozen=True, slots=True)
class Prefill:
    """Several tokens of one request.

    Attributes:
        queries: Slice of the packed queries.
        cells: [keys], cells of the keys in the cache; the queries' own keys are the last. None for the start of a
            prompt, which needs no other keys.
        mask: [queries, keys], 0 or minus infinity; None for the start of a prompt that is plainly causal.
    """

    queries: slice
    cells: Tensor | slice | None
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Groups:
    """What attention with one window does in one pass."""

    decodes: tuple[Decode, ...]
    prefills: tuple[Prefill, ...]


class PackedPlan:
    """What attention does in one forward pass: the same in every layer with the same window.

    Args:
        spans: The requests, in packed order.
        memory: The cache.
        upload: Copies integers to the device.
        dtype: Of masks.
        more: Further integers of the pass, to be copied with the plan's.

    Attributes:
        memory: The cache.
        paged: What the kernel computes, with any window; None for nothing.
        written: [Tq], cells for the new keys and values.
        more: Those of `more`, on the device.
    """

    def __init__(
        self,
        spans: Sequence[Piece],
        memory: CacheMemory,
        upload: Upload,
        dtype: torch.dtype,
        more: Sequence[np.ndarray] = (),
    ) -> None:
        self.memory = memory
        self._spans = spans
        self._upload = upload
        self._dtype = dtype
        written: list[int] = []
        for queries, keys, blocks in spans:
            written.extend(_indices(memory.cells(blocks, keys - queries, keys)))
        parts = [np.asarray(written, dtype=np.int64), *more]
        one_each = _one_each(spans, parts) if memory.kernel else None
        drafts = {window: _Draft(spans, memory, window, parts) for window in memory.windows}
        self.written, *rest = upload(parts)
        self.more = rest[: len(more)]
        sent = [self.written, *rest]
        self._groups = {window: draft.finish(sent, dtype) for window, draft in drafts.items()}
        self.paged: PagedDecode | None = None
        if one_each is not None:
            places, table, counts = one_each
            rows = sent[places] if isinstance(places, int) else places
            self.paged = PagedDecode(rows, sent[table].view(sent[counts].numel(), -1), sent[counts])

    def groups(self, window: int | None) -> Groups:
        """Returns what attention with this window does."""
        found = self._groups.get(window)
        if found is None:  # the first time that any layer asks for this window
            self.memory.windows[window] = None
            parts: list[np.ndarray] = []
            draft = _Draft(self._spans, self.memory, window, parts)
            sent = [torch.from_numpy(part.ravel()).to(self.written.device) for part in parts]
            found = self._groups[window] = draft.finish(sent, self._dtype)
        return found


def _indices(cells: slice | np.ndarray) -> range | np.ndarray:
    return range(cells.start, cells.stop) if isinstance(cells, slice) else cells


def _one_each(spans: Sequence[Piece], parts: list[np.ndarray]) -> tuple[slice | int, int, int] | None:
    """Returns queries, table and lengths of the requests with one query each, as parts of what will be copied."""
    places, held, lengths = [], [], []
    q = 0
    for queries, keys, blocks in spans:
        if queries == 1:
            places.append(q)
            held.append(blocks)
            lengths.append(keys)
        q += queries
    if not places:
        return None
    table = np.zeros((len(held), max(map(len, held))), dtype=np.int64)
    for row, blocks in zip(table, held, strict=True):
        row[: len(blocks)] = blocks
    queries_ = _rows(places, parts)
    parts += [table, np.asarray(lengths)]
    return queries_, len(parts) - 2, len(parts) - 1


class _Draft:
    """Groups whose integers are not on the device yet: they are numbered as parts of what will be copied."""

    def __init__(
        self, spans: Sequence[Piece], memory: CacheMemory, window: int | None, parts: list[np.ndarray]
    ) -> None:
        self._window = window
        self._decodes: list[tuple[int, slice | int, slice | int, slice | int | None, int]] = []
        self._prefills: list[tuple[slice, slice | int | None, int, int]] = []
        decodes: dict[int, list[tuple[int, Piece, int]]] = defaultdict(list)
        q = 0
        for span in spans:
            queries, keys, blocks = span
            first = 0 if window is None else max(0, keys - queries - window + 1)
            if queries == 1 and memory.kernel:
                pass  # see `PackedPlan.paged`
            elif queries == 1 and 0 < memory.alone <= keys - first:
                self._group([(q, span, first)], memory, parts)
            elif queries == 1:
                # Grouped by powers of two: padding at most doubles the work, however different the lengths are.
                decodes[(keys - first - 1).bit_length()].append((q, span, first))
            else:
                cells: slice | int | None = None
                if queries != keys:
                    cells = _part(memory.cells(blocks, first, keys), parts)
                self._prefills.append((slice(q, q + queries), cells, queries, keys - first))
            q += queries
        for group in decodes.values():
            self._group(group, memory, parts)

    def _group(self, group: Sequence[tuple[int, Piece, int]], memory: CacheMemory, parts: list[np.ndarray]) -> None:
        lengths = [span.keys - first for _, span, first in group]
        longest = max(lengths)
        queries = _rows([place for place, _, _ in group], parts)
        found = [memory.cells(span.blocks, first, span.keys) for _, span, first in group]
        if len(group) == 1:
            self._decodes.append((1, queries, _part(found[0], parts), None, longest))
            return
        cells = np.empty((len(group), longest), dtype=np.int64)
        for row, of_one in zip(cells, found, strict=True):
            indices = np.arange(of_one.start, of_one.stop) if isinstance(of_one, slice) else of_one
            row[: len(indices)] = indices
            row[len(indices) :] = indices[-1]
        of_lengths = None if min(lengths) == longest else _part(np.asarray(lengths), parts)
        self._decodes.append((len(group), queries, _part(cells, parts), of_lengths, longest))

    def finish(self, sent: Sequence[Tensor], dtype: torch.dtype) -> Groups:
        """Returns the groups, now that the parts are on the device."""
        device = sent[0].device if sent else torch.device("cpu")

        def there(part: slice | int | None) -> Any:
            return sent[part] if isinstance(part, int) else part

        decodes = []
        for batch, queries, cells, lengths, longest in self._decodes:
            mask = None
            if lengths is not None:
                beyond = torch.arange(longest, device=device) >= there(lengths)[:, None]
                mask = torch.zeros(beyond.shape, device=device, dtype=dtype).masked_fill_(beyond, -torch.inf)
                mask = mask[:, None, None]
            decodes.append(Decode(batch, there(queries), there(cells), mask))
        prefills = []
        for rows, where, queries_, keys in self._prefills:
            plain = where is None and (self._window is None or keys <= self._window)
            seen = None if plain else seen_mask(queries_, keys, self._window, device, dtype)
            prefills.append(Prefill(rows, there(where), seen))
        return Groups(tuple(decodes), tuple(prefills))


def _rows(places: Sequence[int], parts: list[np.ndarray]) -> slice | int:
    """Returns the rows at rising places: a slice where they are side by side, which costs no gather."""
    side_by_side = places[-1] - places[0] == len(places) - 1
    return slice(places[0], places[-1] + 1) if side_by_side else _part(np.asarray(places), parts)


def _part(cells: slice | np.ndarray, parts: list[np.ndarray]) -> slice | int:
    """Returns a slice as it is, and the number of anything else, which joins the parts."""
    if isinstance(cells, slice):
        return cells
    parts.append(cells)
    return len(parts) - 1


def seen_mask(queries: int, keys: int, window: int | None, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Returns 0 for the keys that each query sees and minus infinity for the others, [queries, keys].

    Args:
        queries: Their own keys are the last.
        window: Number of keys that a query sees, its own included; None for all up to its own.
    """
    mask = torch.full((queries, keys), -torch.inf, device=device, dtype=dtype)
    later = mask.triu(keys - queries + 1)
    if window is None:
        return later
    return later + mask.tril(keys - queries - window)
