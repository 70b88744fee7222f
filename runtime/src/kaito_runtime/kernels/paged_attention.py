"""paged_attention: one query for each sequence over keys and values in blocks. Reference in plain torch, two Triton
kernels, launcher.

A sequence's keys are cut into parts, so that a few long sequences still fill the device. The first kernel attends to
one part, with all heads that share its keys at once; the second joins the parts in a fixed order.
Source: Dao, FlashDecoding, https://crfm.stanford.edu/2023/10/12/flashdecoding.html.
"""

# mypy: allow-incomplete-defs

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaito_runtime.kernels.common import FLOATING, check_dtype, check_shape, same_device
from kaito_runtime.kernels.device import current_target
from kaito_runtime.kernels.launch import cdiv, next_power_of_2

__all__ = ["paged_attention", "paged_attention_reference"]

_PROGRAMS = 512  # enough for every multiprocessor of today's devices
_KEYS = 64  # of one iteration
_LEAST = 4  # iterations of a part: fewer do not pay for joining it


def paged_attention_reference(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    lengths: Tensor,
    *,
    block_tokens: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
) -> Tensor:
    """Computes the same in plain torch, one sequence after the other, in the dtype of `query`."""
    heads, shared = query.shape[1], query.shape[1] // keys.shape[1]
    out = query.new_empty(len(query), heads, values.shape[2])
    for row, (q, blocks, length) in enumerate(zip(query, table.tolist(), lengths.tolist(), strict=True)):
        first = max(0, length - window) if window else 0
        cells = [blocks[i // block_tokens] * block_tokens + i % block_tokens for i in range(first, length)]
        k, v = (part[cells].to(q.dtype).repeat_interleave(shared, 1).transpose(0, 1) for part in (keys, values))
        scores = (k @ q[:, :, None])[:, :, 0] * scale
        if softcap:
            scores = softcap * (scores / softcap).tanh()
        if sinks is not None:
            scores = torch.cat([scores, sinks.to(scores.dtype)[:, None]], 1)
        weights = scores.softmax(-1)[:, : len(cells)]
        out[row] = (weights[:, None] @ v)[:, 0]
    return out


@triton.jit(do_not_specialize=["WIDTH", "WINDOW"])
def part_kernel(
    query_ptr,  # [B, H, D]
    keys_ptr,  # [cells, Hkv, D]
    values_ptr,  # [cells, Hkv, DV]
    table_ptr,  # [B, WIDTH], integers
    lengths_ptr,  # [B], integers
    acc_ptr,  # [B, H, SPLIT, DV] fp32
    sums_ptr,  # [2, B, H, SPLIT] fp32: largest score, sum of exponentials
    scale,
    softcap,
    WIDTH,
    WINDOW,
    H: tl.constexpr,
    GROUPS: tl.constexpr,
    D: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    SPLIT: tl.constexpr,
    SOFTCAP: tl.constexpr,
    UPCAST: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    part = tl.program_id(2)
    length = tl.load(lengths_ptr + row).to(tl.int32)
    first = 0
    if WINDOW > 0:
        first = tl.maximum(length - WINDOW, 0)
    per_part = tl.cdiv(tl.cdiv(length - first, BLOCK_K), SPLIT) * BLOCK_K
    start = first + part * per_part
    end = tl.minimum(start + per_part, length)

    hs = tl.arange(0, BLOCK_H)
    heads = group * (H // GROUPS) + hs
    head_ok = hs < H // GROUPS
    ds = tl.arange(0, BLOCK_D)
    dvs = tl.arange(0, BLOCK_DV)
    q = tl.load(
        query_ptr + (row * H + heads[:, None]) * D + ds[None, :], mask=head_ok[:, None] & (ds < D)[None, :], other=0.0
    )
    if UPCAST:
        q = q.to(tl.float32)
    largest = tl.full((BLOCK_H,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK_H,), dtype=tl.float32)
    acc = tl.zeros((BLOCK_H, BLOCK_DV), dtype=tl.float32)
    for at in range(start, end, BLOCK_K):
        places = at + tl.arange(0, BLOCK_K)
        live = places < end
        block = tl.load(table_ptr + row * WIDTH + places // BLOCK_TOKENS, mask=live, other=0).to(tl.int64)
        cells = (block * BLOCK_TOKENS + places % BLOCK_TOKENS) * GROUPS + group
        # Masked, not multiplied by 0: what nobody wrote may be no number.
        k = tl.load(keys_ptr + cells[None, :] * D + ds[:, None], mask=live[None, :] & (ds < D)[:, None], other=0.0)
        v = tl.load(
            values_ptr + cells[:, None] * DV + dvs[None, :], mask=live[:, None] & (dvs < DV)[None, :], other=0.0
        )
        if UPCAST:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(q, k, input_precision="ieee") * scale
        if SOFTCAP:
            scores = softcap * (1.0 - 2.0 / (tl.exp(2.0 * scores / softcap) + 1.0))  # tanh
        scores = tl.where(live[None, :], scores, float("-inf"))
        higher = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        shrunk = tl.exp(largest - higher)
        total = total * shrunk + tl.sum(weights, 1)
        acc = tl.dot(weights.to(v.dtype), v, acc * shrunk[:, None], input_precision="ieee")
        largest = higher
    places_out = (row * H + heads) * SPLIT + part
    tl.store(acc_ptr + places_out[:, None] * DV + dvs[None, :], acc, mask=head_ok[:, None] & (dvs < DV)[None, :])
    tl.store(sums_ptr + places_out, largest, mask=head_ok)
    tl.store(sums_ptr + tl.num_programs(0) * H * SPLIT + places_out, total, mask=head_ok)


@triton.jit
def join_kernel(
    acc_ptr,  # [B, H, SPLIT, DV] fp32
    sums_ptr,  # [2, B, H, SPLIT] fp32
    sinks_ptr,  # [H]
    out_ptr,  # [B, H, DV]
    H: tl.constexpr,
    DV: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    SPLIT: tl.constexpr,
    SINKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    parts = (row * H + head) * SPLIT + tl.arange(0, SPLIT)
    dvs = tl.arange(0, BLOCK_DV)
    largest = tl.load(sums_ptr + parts)
    total = tl.load(sums_ptr + tl.num_programs(0) * H * SPLIT + parts)
    highest = tl.max(largest, 0)
    if SINKS:
        sink = tl.load(sinks_ptr + head).to(tl.float32)
        highest = tl.maximum(highest, sink)
    weights = tl.exp(largest - highest)  # 0 for a part without keys
    whole = tl.sum(total * weights, 0)
    if SINKS:
        whole += tl.exp(sink - highest)
    acc = tl.load(acc_ptr + parts[:, None] * DV + dvs[None, :], mask=(dvs < DV)[None, :], other=0.0)
    out = tl.sum(acc * weights[:, None], 0) / whole
    tl.store(out_ptr + (row * H + head) * DV + dvs, out.to(out_ptr.dtype.element_ty), mask=dvs < DV)


def paged_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    lengths: Tensor,
    *,
    block_tokens: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    split: int | None = None,
) -> Tensor:
    """Attends with the last token of each sequence. Where Triton does not run, by the reference.

    Args:
        query: `[B, H, D]`, contiguous.
        keys: `[cells, Hkv, D]`, contiguous; a block is `block_tokens` cells side by side.
        values: `[cells, Hkv, Dv]`, contiguous.
        table: `[B, W]` integers, the blocks of each sequence in order.
        lengths: `[B]` integers, the keys of each sequence, at least 1 and at most W * block_tokens.
        block_tokens: Tokens of one block.
        scale: Factor of the scores.
        window: Number of keys that are seen, the last ones; 0 for all.
        softcap: Bounds scores: softcap * tanh(score / softcap); 0 for no bound.
        sinks: `[H]`, a score for each head that takes part in the softmax and has no value.
        split: Replaces the number of parts, in tests; a power of two.

    Returns:
        `[B, H, Dv]`.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    options = {"block_tokens": block_tokens, "scale": scale, "window": window, "softcap": softcap, "sinks": sinks}
    if not (query.is_cuda or triton.knobs.runtime.interpret):
        return paged_attention_reference(query, keys, values, table, lengths, **options)  # type: ignore[arg-type]
    _check(query, keys, values, table, lengths, sinks)
    batch, heads, width = query.shape
    groups, of_values = values.shape[1:]
    most = min(table.shape[1] * block_tokens, window or math.inf)
    parts = split or min(next_power_of_2(cdiv(_PROGRAMS, max(batch * groups, 1))), cdiv(int(most), _KEYS * _LEAST))
    parts = next_power_of_2(parts)
    acc = torch.empty(batch, heads, parts, of_values, device=query.device, dtype=torch.float32)
    sums = torch.empty(2, batch, heads, parts, device=query.device, dtype=torch.float32)
    out = torch.empty(batch, heads, of_values, device=query.device, dtype=query.dtype)
    block_dv = next_power_of_2(of_values)
    part_kernel[(batch, groups, parts)](
        query, keys, values, table, lengths, acc, sums, scale, softcap, table.shape[1], window,
        H=heads, GROUPS=groups, D=width, DV=of_values, BLOCK_H=max(16, next_power_of_2(heads // groups)),
        BLOCK_D=next_power_of_2(width), BLOCK_DV=block_dv, BLOCK_K=_KEYS, BLOCK_TOKENS=block_tokens, SPLIT=parts,
        SOFTCAP=softcap != 0, UPCAST=current_target().interpret, num_warps=4, num_stages=2,
    )  # fmt: skip
    join_kernel[(batch, heads)](
        acc, sums, sums if sinks is None else sinks, out,
        H=heads, DV=of_values, BLOCK_DV=block_dv, SPLIT=parts, SINKS=sinks is not None, num_warps=4,
    )  # fmt: skip
    return out


def _check(query: Tensor, keys: Tensor, values: Tensor, table: Tensor, lengths: Tensor, sinks: Tensor | None) -> None:
    if query.ndim != 3 or keys.ndim != 3 or values.ndim != 3 or table.ndim != 2:
        raise ValueError(
            f"query, keys, values and table have {query.ndim}, {keys.ndim}, {values.ndim} and {table.ndim} dimensions, "
            "expected 3, 3, 3 and 2"
        )
    batch, heads, width = query.shape
    cells, groups, _ = keys.shape
    of_values = values.shape[2]
    if groups == 0 or heads % groups:
        raise ValueError(f"query has {heads} heads, which the keys' {groups} do not divide")
    check_dtype("query", query, FLOATING)
    check_shape("query", query, (batch, heads, width), "[sequences, heads, width]")
    check_dtype("keys", keys, (query.dtype,))
    for name, part, expected in (
        ("keys", keys, (cells, groups, width)),
        ("values", values, (cells, groups, of_values)),
    ):
        if tuple(part.shape) != expected or not part.is_contiguous():  # of any size: the kernel has 64 bits for it
            raise ValueError(
                f"{name} has shape {list(part.shape)} and strides {list(part.stride())}, expected contiguous "
                f"{list(expected)}"
            )
    check_dtype("values", values, (query.dtype,))
    check_shape("table", table, (batch, table.shape[1]), f"sequences of query {list(query.shape)}")
    check_shape("lengths", lengths, (batch,), f"sequences of query {list(query.shape)}")
    if sinks is not None:
        check_shape("sinks", sinks, (heads,), f"heads of query {list(query.shape)}")
    same_device(query=query, keys=keys, values=values, table=table, lengths=lengths)
