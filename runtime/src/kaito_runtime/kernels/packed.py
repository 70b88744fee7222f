"""Weights laid out for the CPU: fp32 products of a few to some dozens of tokens take up to half the time.

Two layouts. oneDNN's own is a second copy, made by torch's layout conversion; it is found by probing since the
operators are private, and where they are missing nothing is packed and `F.linear` is what it was. Storing a weight by
columns instead of rows costs nothing, and is the faster one for single tokens and for many, as long as the weight is
small.
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

# Measured, see docs/explanation/lora-kernels.md: below these, the plain product is as fast or faster.
MIN_TOKENS = 4
MIN_ELEMENTS = 256 * 1024
# Up to so many elements a weight is stored by columns; the product with it is the fastest of all for one token and from
# so many tokens on, and slow in between: where x is at least as wide as y, and where it is narrower.
MAX_COLUMNS_ELEMENTS = 1024 * 1024
BY_COLUMNS_TOKENS, BY_COLUMNS_TOKENS_WIDENING = 28, 48


def can_pack(weight: Tensor) -> bool:
    """Whether `weight` `[N, K]` is worth packing here, and torch offers it."""
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
    """Returns a packed copy of `weight` `[N, K]`, readable by `packed_linear` alone."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return packed


def suits_columns(weight: Tensor) -> bool:
    """Whether products with `weight` `[N, K]` are faster where it is stored by columns."""
    return weight.device.type == "cpu" and weight.dtype is torch.float32 and weight.numel() <= MAX_COLUMNS_ELEMENTS


def by_columns(weight: Tensor) -> Tensor:
    """Returns `weight` `[N, K]`, the same values with strides (1, N)."""
    return weight.detach().t().contiguous().t()


def by_columns_tokens(weight: Tensor) -> int:
    """Returns from how many tokens on products with `weight` `[N, K]` by columns are faster than with it packed."""
    n, k = weight.shape
    return BY_COLUMNS_TOKENS if k >= n else BY_COLUMNS_TOKENS_WIDENING


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """y = x W^T + bias with a weight from `pack`.

    Shapes:
        `[..., K]` to `[..., N]`.
    """
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y
