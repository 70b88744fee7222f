"""Weights packed for the CPU: fp32 products of a few to some dozens of tokens take a third less time.

torch's own layout conversion, found by probing since the operators are private; where they are missing, nothing is
packed and `F.linear` is what it was. Costs a second copy of the weight, so callers opt in.
"""

# mypy: allow-untyped-calls

import torch
from torch import Tensor

__all__ = ["MIN_ELEMENTS", "MIN_TOKENS", "can_pack", "pack", "packed_linear"]

# Measured, see docs/explanation/lora-kernels.md: below these, the plain product is as fast or faster.
MIN_TOKENS = 4
MIN_ELEMENTS = 256 * 1024


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


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """y = x W^T + bias with a weight from `pack`.

    Shapes:
        `[..., K]` to `[..., N]`.
    """
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y
