"""Attention over a packed batch: each request's queries meet its own keys only. Scheduling and cache are `batching`'s.

transformers' own way without flash kernels is one product of all queries with all keys of the batch under a mask, whose
cost grows with the square of the number of requests, and whose mask is as large as the cache times the step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

__all__ = ["NAME", "Decode", "PackedPlan", "Prefill", "packed_attention", "plan_attention"]

NAME = "kaito_packed"
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")  # would change the result if they were ignored


@dataclass(frozen=True, slots=True)
class Decode:
    """Requests with one query each, computed as one batch.

    Attributes:
        batch: B, how many requests.
        queries: [B], positions in the packed queries.
        keys: [B * L], positions in the packed keys; those beyond a request's own are repeated, and masked.
        mask: [B, 1, 1, L], 0 or minus infinity; None where all have L keys.
    """

    batch: int
    queries: Tensor | slice
    keys: Tensor | slice
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Prefill:
    """One request's part of its prompt.

    Attributes:
        queries: Slice of the packed queries.
        keys: Slice of the packed keys; the last of them are the queries' own.
        mask: [queries, keys], 0 or minus infinity; None for a prompt from its start, which is plainly causal.
    """

    queries: slice
    keys: slice
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """How one forward pass attends, the same in every layer."""

    decodes: tuple[Decode, ...]
    prefills: tuple[Prefill, ...]


def plan_attention(spans: Sequence[tuple[int, int]], device: torch.device, dtype: torch.dtype) -> PackedPlan:
    """Returns the plan for requests with (queries, keys) tokens each, in packed order."""
    decodes: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    prefills = []
    q = k = 0
    for queries, keys in spans:
        if queries == 1:
            # By powers of two, so that padding at most doubles the work, however the lengths differ.
            decodes[(keys - 1).bit_length()].append((q, k, keys))
        else:
            mask = None if queries == keys else _causal(queries, keys, device, dtype)
            prefills.append(Prefill(slice(q, q + queries), slice(k, k + keys), mask))
        q, k = q + queries, k + keys
    return PackedPlan(tuple(_decode(group, device, dtype) for group in decodes.values()), tuple(prefills))


def _decode(group: Sequence[tuple[int, int, int]], device: torch.device, dtype: torch.dtype) -> Decode:
    if len(group) == 1:  # nothing to gather
        ((query, start, length),) = group
        return Decode(1, slice(query, query + 1), slice(start, start + length), None)
    queries, starts, lengths = (torch.tensor(column, device=device) for column in zip(*group, strict=True))
    longest = max(length for _, _, length in group)
    steps = torch.arange(longest, device=device)
    beyond = steps >= lengths[:, None]
    keys = starts[:, None] + torch.minimum(steps, lengths[:, None] - 1)
    mask = None
    if any(length != longest for _, _, length in group):
        mask = torch.zeros(beyond.shape, device=device, dtype=dtype).masked_fill_(beyond, -torch.inf)[:, None, None]
    return Decode(len(group), queries, keys.flatten(), mask)


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
    """Attends by the plan that `cache.plan` holds, in the form of transformers' attention functions.

    Shapes:
        query: [1, H, Tq, D]; key and value: [1, Hkv, Tq, D], extended by the cache to all Tk keys. Returns
        [1, Tq, H, D].

    Raises:
        ValueError: The model asks for something that plain attention does not do.
    """
    if wrong := [name for name in _UNSUPPORTED if kwargs.get(name) is not None]:
        raise ValueError(f"{type(module).__name__} wants {', '.join(wrong)}, which packed attention does not do")
    key, value = cache.update(key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=kwargs)
    plan: PackedPlan = cache.plan
    tokens = query[0].transpose(0, 1)  # [Tq, H, D]
    keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)  # [Tk, Hkv, D]
    heads, groups, width = query.shape[1], key.shape[1], query.shape[3]
    out = torch.empty(query.shape[2], heads, width, dtype=query.dtype, device=query.device)
    for decode in plan.decodes:
        batch = decode.batch
        k, v = (part[decode.keys].reshape(batch, -1, groups, width).transpose(1, 2) for part in (keys, values))
        # Heads that share keys become queries of one head, so that no key is copied.
        q = tokens[decode.queries].reshape(batch, groups, heads // groups, width)
        found = F.scaled_dot_product_attention(q, k, v, decode.mask, scale=scaling)
        out[decode.queries] = found.reshape(batch, heads, width)
    for prefill in plan.prefills:
        k, v = (_per_head(part[prefill.keys], heads) for part in (keys, values))
        q = tokens[prefill.queries].transpose(0, 1)[None]
        causal = prefill.mask is None
        found = F.scaled_dot_product_attention(q, k, v, prefill.mask, is_causal=causal, scale=scaling)
        out[prefill.queries] = found[0].transpose(0, 1)
    return out[None], None


def _per_head(part: Tensor, heads: int) -> Tensor:
    """Returns [1, H, T, D] for [T, Hkv, D]."""
    return part.transpose(0, 1).repeat_interleave(heads // part.shape[1], dim=0)[None]


AttentionInterface.register(NAME, packed_attention)
