"""Attention over a packed batch: each request's queries meet its own keys only. Scheduling and cache are in `batching`.

Without flash kernels, transformers computes one product of all queries with all keys of the batch under a mask. Its
cost grows with the square of the number of requests, and its mask has the step's tokens times the cache's elements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

__all__ = ["NAME", "Decode", "Layer", "PackedPlan", "Prefill", "cache_layers", "packed_attention", "plan_attention"]

NAME = "kaito_packed"
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")  # arguments that would change the result if they were ignored

Layer = tuple[Tensor, Tensor]
"""(keys, values) of one layer, [cells, Hkv, D] each: views of the cache's own memory."""


@dataclass(frozen=True, slots=True)
class Decode:
    """Requests with one query each, computed as one batch.

    Attributes:
        batch: B, number of requests.
        queries: [B], positions in the packed queries.
        cells: [B * L], cells of their keys in the cache. Shorter requests are padded with their last cell, masked.
        mask: [B, 1, 1, L], 0 or minus infinity; None where all have L keys.
    """

    batch: int
    queries: Tensor | slice
    cells: Tensor
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Prefill:
    """Part of one request's prompt.

    Attributes:
        queries: Slice of the packed queries.
        cells: [keys], cells of the keys in the cache; the queries' own keys are the last. None for the start of a
            prompt, which needs no other keys.
        mask: [queries, keys], 0 or minus infinity; None for the start of a prompt, which is plainly causal.
    """

    queries: slice
    cells: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """What attention does in one forward pass, the same in every layer.

    Attributes:
        decodes: Requests with one query each, in groups of similar length.
        prefills: Requests with several.
        written: [Tq], cells for the new keys and values.
        layers: The cache, by layer.
    """

    decodes: tuple[Decode, ...]
    prefills: tuple[Prefill, ...]
    written: Tensor
    layers: Mapping[int, Layer]


def cache_layers(cache: Any) -> dict[int, Layer]:
    """Returns the memory of transformers' paged cache by layer, in cells as transformers' indices count them."""
    pages = {index: allocator.get_cache_for_block_table(index) for index, allocator in cache.layer_to_allocator.items()}
    return {index: (k.view(-1, *k.shape[2:]), v.view(-1, *v.shape[2:])) for index, (k, v) in pages.items()}


def plan_attention(
    spans: Sequence[tuple[int, int]], read: Tensor, written: Tensor, layers: Mapping[int, Layer]
) -> PackedPlan:
    """Returns the plan for a batch.

    Args:
        spans: (queries, keys) of each request, in tokens and in packed order.
        read: [Tk], cells of all keys in packed order, the new ones included; may be empty if no request has more keys
            than queries.
        written, layers: See `PackedPlan`.
    """
    dtype = next(iter(layers.values()))[0].dtype
    decodes: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    prefills = []
    q = k = 0
    for queries, keys in spans:
        if queries == keys:
            prefills.append(Prefill(slice(q, q + queries), None, None))
        elif queries == 1:
            # Grouped by powers of two: padding at most doubles the work, however different the lengths are.
            decodes[(keys - 1).bit_length()].append((q, k, keys))
        else:
            mask = _causal(queries, keys, read.device, dtype)
            prefills.append(Prefill(slice(q, q + queries), read[k : k + keys], mask))
        q, k = q + queries, k + keys
    groups = (_decode(group, read, dtype) for group in decodes.values())
    return PackedPlan(tuple(groups), tuple(prefills), written, layers)


def _decode(group: Sequence[tuple[int, int, int]], read: Tensor, dtype: torch.dtype) -> Decode:
    if len(group) == 1:
        ((query, start, length),) = group
        return Decode(1, slice(query, query + 1), read[start : start + length], None)
    queries, starts, lengths = (torch.tensor(column, device=read.device) for column in zip(*group, strict=True))
    first, last, longest = group[0][0], group[-1][0], max(length for _, _, length in group)
    steps = torch.arange(longest, device=read.device)
    beyond = steps >= lengths[:, None]
    keys = starts[:, None] + torch.minimum(steps, lengths[:, None] - 1)
    mask = None
    if any(length != longest for _, _, length in group):
        mask = torch.zeros(beyond.shape, device=read.device, dtype=dtype).masked_fill_(beyond, -torch.inf)
        mask = mask[:, None, None]
    side_by_side = last - first + 1 == len(group)
    return Decode(len(group), slice(first, last + 1) if side_by_side else queries, read[keys.flatten()], mask)


def _causal(queries: int, keys: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.full((queries, keys), -torch.inf, device=device, dtype=dtype).triu_(keys - queries + 1)


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers' interface, by the plan in `cache.plan`.

    Writes and reads the cache's memory itself: `cache.update` would gather all keys of the batch, and each request's
    would have to be gathered from those again.

    Shapes:
        query: [1, H, Tq, D]; key and value: [1, Hkv, Tq, D], the new ones. Returns [1, Tq, H, D].

    Raises:
        ValueError: The model passes an argument that plain attention does not support.
    """
    if wrong := [name for name in _UNSUPPORTED if kwargs.get(name) is not None]:
        raise ValueError(f"{type(module).__name__} passes {', '.join(wrong)}, which packed attention does not support")
    plan: PackedPlan = cache.plan
    held = plan.layers[module.layer_idx]
    for part, new in zip(held, (key, value), strict=True):
        part.index_copy_(0, plan.written, new[0].transpose(0, 1))
    tokens = query[0].transpose(0, 1)  # [Tq, H, D]
    heads, groups, width = query.shape[1], key.shape[1], query.shape[3]
    out = torch.empty(query.shape[2], heads, width, dtype=query.dtype, device=query.device)
    for decode in plan.decodes:
        batch, rows = decode.batch, decode.queries
        k, v = (part.index_select(0, decode.cells).view(batch, -1, groups, width).transpose(1, 2) for part in held)
        # Heads that share keys become several queries of one head, so that keys need not be repeated.
        q = tokens[rows].reshape(batch, groups, heads // groups, width)
        out[rows] = F.scaled_dot_product_attention(q, k, v, decode.mask, scale=scaling).reshape(batch, heads, width)
    for prefill in plan.prefills:
        q = query[:, :, prefill.queries]
        if prefill.cells is None:
            k, v = key[:, :, prefill.queries], value[:, :, prefill.queries]
        else:
            k, v = (part.index_select(0, prefill.cells).transpose(0, 1)[None] for part in held)
        found = F.scaled_dot_product_attention(
            q, k, v, prefill.mask, is_causal=prefill.mask is None, scale=scaling, enable_gqa=heads != groups
        )
        out[prefill.queries] = found[0].transpose(0, 1)
    return out[None], None


AttentionInterface.register(NAME, packed_attention)
