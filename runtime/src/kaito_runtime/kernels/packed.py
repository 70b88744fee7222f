"""Weights laid out for the CPU: an fp32 product of a few to some dozens of tokens takes as little as half the time.

There are two layouts. oneDNN's own is a second copy, made by private operators of torch; where they are missing,
`can_pack` is false and the plain product stays. Storing a weight by columns instead of rows needs no copy, and is the
fastest for a single token and for many, as long as the weight is small.
"""

# mypy: allow-untyped-calls

import torch
from torch import Tensor

__all__ = [
    "MIN_ELEMENTS",
    "MIN_TOKENS",
    "by_columns",
    "by_columns_tokens",
    "can_pack",
    "pack",
    "packed_linear",
    "suits_columns",
]

# Measured, see docs/explanation/lora-kernels.md: below these the plain product is as fast or faster.
MIN_TOKENS = 4
MIN_ELEMENTS = 256 * 1024
# Largest weight that is stored by columns. The product with it is the fastest of all for one token, and again from this
# many tokens on: the first figure where K >= N, the second (a widening layer) where K < N. In between it is slow.
MAX_COLUMNS_ELEMENTS = 1024 * 1024
BY_COLUMNS_TOKENS, BY_COLUMNS_TOKENS_WIDENING = 28, 48


def can_pack(weight: Tensor) -> bool:
    """Returns whether packing `weight` `[N, K]` pays on this machine, and torch can do it."""
    return (
        weight.device.type == "cpu"
        and weight.dtype is torch.float32
        and weight.ndim == 2
        and weight.numel() >= MIN_ELEMENTS
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def pack(weight: Tensor) -> Tensor:
    """Returns a packed copy of `weight` `[N, K]`, which only `packed_linear` can read."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return packed


def suits_columns(weight: Tensor) -> bool:
    """Returns whether products with `weight` `[N, K]` are faster if it is stored by columns."""
    return weight.device.type == "cpu" and weight.dtype is torch.float32 and weight.numel() <= MAX_COLUMNS_ELEMENTS


def by_columns(weight: Tensor) -> Tensor:
    """Returns the values of `weight` `[N, K]` with strides (1, N)."""
    return weight.detach().t().contiguous().t()


def by_columns_tokens(weight: Tensor) -> int:
    """Returns the number of tokens from which `weight` `[N, K]` by columns is faster than packed."""
    n, k = weight.shape
    return BY_COLUMNS_TOKENS if k >= n else BY_COLUMNS_TOKENS_WIDENING


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """Computes y = x W^T + bias with a weight from `pack`.

    Shapes:
        `[..., K]` to `[..., N]`.
    """
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y
