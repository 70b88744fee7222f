"""Attention over a packed batch: each request's queries meet its own keys only, by the plan in `packing`.

Transformers' models call `packed_attention` by its name in transformers' public registry. No mask is registered with
it, so models make none: the plan has those that are needed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from kaito_runtime.engine.packing import Decode, PackedPlan, seen_mask

__all__ = ["NAME", "packed_attention"]

NAME = "kaito_packed"
_UNSUPPORTED = ("position_bias",)  # arguments that would change the result if they were ignored


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
    paged = cache.paged
    if plain and len(decodes) == 1 and not (prefills or paged) and isinstance(decodes[0].queries, slice):
        return _decode(decodes[0], tokens, held, groups, scaling).reshape(1, -1, heads, width), None
    out = torch.empty(query.shape[2], heads, width, dtype=query.dtype, device=query.device)
    if paged is not None:
        from kaito_runtime.kernels.paged_attention import paged_attention  # imports Triton, which a CPU never needs

        out[paged.queries] = paged_attention(
            tokens[paged.queries].contiguous(),
            *held,
            paged.table,
            paged.lengths,
            block_tokens=cache.memory.block_tokens,
            scale=query.shape[3] ** -0.5 if scaling is None else scaling,
            window=sliding_window or 0,
            softcap=softcap or 0.0,
            sinks=s_aux,
        )
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
                mask = seen_mask(q.shape[2], k.shape[2], None, q.device, q.dtype)
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
