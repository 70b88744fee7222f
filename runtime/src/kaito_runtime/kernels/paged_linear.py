"""A whole LoRA layer over rank pages: K1 then K2, K1 then K3, or K1 then a library product, in the order that
programmatic dependent launch needs. Which one is `dispatch`'s decision.

Without Triton's device or interpreter the references run, in fp32: slow, right, and the same layout, so that everything
above the kernels is tested on any machine.
"""

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from kaito_runtime.kernels.expand_add import expand_add_
from kaito_runtime.kernels.gemm_expand_paged import expand_reference, gemm_expand_paged, gemm_expand_paged_reference
from kaito_runtime.kernels.launch import PAGE
from kaito_runtime.kernels.shrink_paged import shrink_paged, shrink_paged_reference
from kaito_runtime.kernels.tiles import Tiles

__all__ = ["lora_add_", "lora_linear", "lora_tail_linear"]


def _triton_runs(x: Tensor) -> bool:
    return x.is_cuda or bool(triton.knobs.runtime.interpret)


def lora_linear(
    x: Tensor,
    w: Tensor,
    a_pool: Tensor,
    b_pool: Tensor,
    s: Tensor,
    tiles: Tiles,
    *,
    bias: Tensor | None = None,
    w_scale: Tensor | None = None,
) -> Tensor:
    """y = x W^T + bias + ((x A^T) * s) B^T in two launches, nothing in between. Arguments as in `gemm_expand_paged`.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    if _triton_runs(x):
        u = shrink_paged(x, a_pool, s, tiles)
        return gemm_expand_paged(x, w, u, b_pool, tiles, bias=bias, w_scale=w_scale)

    u = shrink_paged_reference(x, a_pool, s, tiles)
    return gemm_expand_paged_reference(x, w, u, b_pool, tiles, bias=bias, w_scale=w_scale).to(x.dtype)


def lora_add_(y: Tensor, x: Tensor, a_pool: Tensor, b_pool: Tensor, s: Tensor, tiles: Tiles) -> Tensor:
    """y += ((x A^T) * s) B^T in two launches. Arguments as in `expand_add_`.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    if _triton_runs(x):
        return expand_add_(y, shrink_paged(x, a_pool, s, tiles), b_pool, tiles)

    return y.add_(expand_reference(shrink_paged_reference(x, a_pool, s, tiles), b_pool, tiles))


def lora_tail_linear(
    x: Tensor, w_tail: Tensor, a_pool: Tensor, s: Tensor, tiles: Tiles, *, bias: Tensor | None = None
) -> Tensor:
    """y = [x|u] [W|B]^T in one launch of ours and one library product.

    Args:
        x: `[T, K]`.
        w_tail: `[N, K + 16 * pages]`: W, then the B pages in the order of the tiles' lists.
        a_pool: `[P*16, K]`.
        s: `[T, slots]` fp32.
        tiles: The same pages on every tile.
        bias: `[N]`.

    Raises:
        ValueError: `w_tail` has not the columns that x and the pages need.
    """
    ranks = w_tail.shape[1] - x.shape[1]
    if not 0 <= ranks <= tiles.width * PAGE or ranks % PAGE:
        raise ValueError(
            f"w_tail has {w_tail.shape[1]} columns, x {list(x.shape)} and up to {tiles.width} pages of {PAGE} need "
            f"at most {x.shape[1] + tiles.width * PAGE}"
        )
    if _triton_runs(x):
        u = shrink_paged(x, a_pool, s, tiles)
    else:
        u = shrink_paged_reference(x, a_pool, s, tiles)
    return F.linear(torch.cat((x, u[..., :ranks].sum(0).to(x.dtype)), dim=1), w_tail, bias)
