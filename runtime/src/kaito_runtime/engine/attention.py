"""Attention over a packed batch: each request's queries meet its own keys only. Which requests those are is decided in
`scheduler`; what a pass needs of them is laid out here, and copied to the device in one piece.

Transformers' models call `packed_attention` by its name in transformers' public registry. No mask is registered with
it, so models make none: the plan has those that are needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

__all__ = ["NAME", "CacheMemory", "Decode", "Groups", "PackedPlan", "Prefill", "Span", "Upload", "packed_attention"]

NAME = "kaito_packed"
_UNSUPPORTED = ("position_bias",)  # arguments that would change the result if they were ignored
# Elements of one request's keys from which a CPU attends to them on their own, where they are: the copy that joins them
# with others' would take longer than a call. By length alone: where keys are must not change the last bit.
_ALONE = 16384


class Span(NamedTuple):
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

    Attributes:
        windows: The sliding windows that layers have asked for; None is the whole sequence.
        alone: Number of keys from which an answer's next token is computed on its own; 0 for never.
    """

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self.blocks = blocks
        self.block_tokens = block_tokens
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
            held = self._layers[index] = tuple(  # type: ignore[assignment]
                torch.zeros(cells, new.shape[1], new.shape[3], dtype=new.dtype, device=new.device)
                for new in (key, value)
            )
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

    def __call__(self, parts: Sequence[np.ndarray]) -> list[Tensor]:
        """Returns the parts on the device, flat. They hold until the next call, which must wait for the pass."""
        sizes = [part.size for part in parts]
        total = sum(sizes)
        if total > len(self._host):
            away = self._device.type != "cpu"
            self._host = torch.empty(2 * total, dtype=torch.int64, pin_memory=away)
            self._there = torch.empty_like(self._host, device=self._device) if away else self._host
        np.concatenate([part.ravel() for part in parts], out=self._host.numpy()[:total])
        if self._there is not self._host:
            self._there[:total].copy_(self._host[:total], non_blocking=True)
        return list(self._there[:total].split(sizes))


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
        written: [Tq], cells for the new keys and values.
        more: Those of `more`, on the device.
    """

    def __init__(
        self,
        spans: Sequence[Span],
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
        drafts = {window: _Draft(spans, memory, window, parts) for window in memory.windows}
        self.written, *rest = upload(parts)
        self.more = rest[: len(more)]
        sent = [self.written, *rest]
        self._groups = {window: draft.finish(sent, dtype) for window, draft in drafts.items()}

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


class _Draft:
    """Groups whose integers are not on the device yet: they are numbered as parts of what will be copied."""

    def __init__(self, spans: Sequence[Span], memory: CacheMemory, window: int | None, parts: list[np.ndarray]) -> None:
        self._window = window
        self._decodes: list[tuple[int, slice | int, slice | int, slice | int | None, int]] = []
        self._prefills: list[tuple[slice, slice | int | None, int, int]] = []
        decodes: dict[int, list[tuple[int, Span, int]]] = defaultdict(list)
        q = 0
        for span in spans:
            queries, keys, blocks = span
            first = 0 if window is None else max(0, keys - queries - window + 1)
            if queries == 1 and 0 < memory.alone <= keys - first:
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

    def _group(self, group: Sequence[tuple[int, Span, int]], memory: CacheMemory, parts: list[np.ndarray]) -> None:
        lengths = [span.keys - first for _, span, first in group]
        longest = max(lengths)
        places = [place for place, _, _ in group]
        side_by_side = places[-1] - places[0] == len(group) - 1
        queries = slice(places[0], places[-1] + 1) if side_by_side else _part(np.asarray(places), parts)
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
            seen = None if plain else _mask(queries_, keys, self._window, device, dtype)
            prefills.append(Prefill(rows, there(where), seen))
        return Groups(tuple(decodes), tuple(prefills))


def _part(cells: slice | np.ndarray, parts: list[np.ndarray]) -> slice | int:
    """Returns a slice as it is, and the number of anything else, which joins the parts."""
    if isinstance(cells, slice):
        return cells
    parts.append(cells)
    return len(parts) - 1


def _mask(queries: int, keys: int, window: int | None, device: torch.device, dtype: torch.dtype) -> Tensor:
    mask = torch.full((queries, keys), -torch.inf, device=device, dtype=dtype)
    later = mask.triu(keys - queries + 1)
    if window is None:
        return later
    return later + mask.tril(keys - queries - window)


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cache: PackedPlan | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers' interface, by the plan in `cache`. Writes and reads the cache's memory.

    Args:
        sliding_window: Number of keys that a query sees, its own included.
        softcap: Bounds scores: softcap * tanh(score / softcap).
        s_aux: [H], a score for each head that takes part in the softmax and has no value ("sink").

    Shapes:
        query: [1, H, Tq, D]; key: [1, Hkv, Tq, D]; value: [1, Hkv, Tq, Dv], the new ones. Returns [1, Tq, H, Dv].

    Raises:
        ValueError: The model passes an argument that is not supported, or is called outside of the engine.
    """
    if wrong := [name for name in _UNSUPPORTED if kwargs.get(name) is not None]:
        raise ValueError(f"{type(module).__name__} passes {', '.join(wrong)}, which packed attention does not support")
    if cache is None:
        raise ValueError(
            f"{type(module).__name__} does not pass on what the engine gives to its model, or is called outside of it"
        )
    held = cache.memory.layer(module.layer_idx, key, value)
    for part, new in zip(held, (key, value), strict=True):
        part.index_copy_(0, cache.written, new[0].transpose(0, 1))
    plan = cache.groups(sliding_window)
    tokens = query[0].transpose(0, 1)  # [Tq, H, D]
    heads, groups, width = query.shape[1], key.shape[1], value.shape[3]
    plain = softcap is None and s_aux is None
    decodes, prefills = plan.decodes, plan.prefills
    if plain and len(decodes) == 1 and not prefills and isinstance(decodes[0].queries, slice):
        return _decode(decodes[0], tokens, held, groups, scaling).reshape(1, -1, heads, width), None
    out = torch.empty(query.shape[2], heads, width, dtype=query.dtype, device=query.device)
    for decode in decodes:
        if plain:
            found = _decode(decode, tokens[decode.queries], held, groups, scaling)
        else:
            k, v = _of_batch(held, decode)
            q = tokens[decode.queries].unsqueeze(2)
            found = _attend(q, k, v, decode.mask, scaling, softcap, s_aux)
        out[decode.queries] = found.reshape(decode.batch, heads, width)
    for prefill in prefills:
        rows = prefill.queries
        q = query[:, :, rows]
        if prefill.cells is None:
            k, v = key[:, :, rows], value[:, :, rows]
        else:
            k, v = (_of_one(part, prefill.cells).transpose(0, 1)[None] for part in held)
        mask, causal = prefill.mask, prefill.mask is None
        if plain:
            found = F.scaled_dot_product_attention(
                q, k, v, mask, is_causal=causal, scale=scaling, enable_gqa=heads != groups
            )
        else:
            if mask is None:
                mask = _mask(q.shape[2], k.shape[2], None, q.device, q.dtype)
            found = _attend(q, k, v, mask, scaling, softcap, s_aux)
        out[rows] = found[0].transpose(0, 1)
    return out[None], None


def _of_one(part: Tensor, cells: Tensor | slice) -> Tensor:
    return part[cells] if isinstance(cells, slice) else part.index_select(0, cells)


def _of_batch(held: tuple[Tensor, Tensor], decode: Decode) -> list[Tensor]:
    """Returns keys and values of a batch, [B, Hkv, L, D]."""
    return [
        _of_one(part, decode.cells).view(decode.batch, -1, part.shape[1], part.shape[2]).transpose(1, 2)
        for part in held
    ]


def _decode(decode: Decode, tokens: Tensor, held: tuple[Tensor, Tensor], groups: int, scaling: float | None) -> Tensor:
    # Heads that share keys become several queries of one head, so that keys need not be repeated.
    q = tokens.reshape(decode.batch, groups, -1, tokens.shape[-1])
    k, v = _of_batch(held, decode)
    return F.scaled_dot_product_attention(q, k, v, decode.mask, scale=scaling)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention with bounded scores or sinks, which torch's function does not have.

    Shapes:
        query: [B, H, T, D]; key: [B, Hkv, L, D]; mask: broadcasts to [B, 1, T, L]. Returns [B, H, T, Dv].
    """
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    q = query.reshape(batch, groups, -1, width)  # the heads that share keys, one after the other
    scores = (q @ key.transpose(2, 3)) * (width**-0.5 if scaling is None else scaling)
    scores = scores.view(batch, heads, length, -1)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    scores = scores.float()
    if sinks is not None:
        aside = sinks.float().view(1, heads, 1, 1).expand(batch, -1, length, -1)
        weights = torch.cat([scores, aside], -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    weights = weights.to(value.dtype).view(batch, groups, -1, scores.shape[-1])
    return (weights @ value).view(batch, heads, length, -1)


AttentionInterface.register(NAME, packed_attention)
