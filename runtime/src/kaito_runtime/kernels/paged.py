"""A whole LoRA layer over rank pages: `shrink`, then `gemm_expand` or `expand_add`, with nothing in between, as
programmatic dependent launch needs it. Which of the two is decided in `dispatch`.

Without a GPU and without Triton's interpreter the references run, in fp32: slow, but right and on the same layout, so
that everything above the kernels is tested on any machine.
"""

import triton
from torch import Tensor

from kaito_runtime.kernels.expand_add import expand_add_, expand_add_reference_
from kaito_runtime.kernels.gemm_expand import gemm_expand, gemm_expand_reference
from kaito_runtime.kernels.shrink import shrink, shrink_reference
from kaito_runtime.kernels.tiles import Tiles

__all__ = ["paged_add_", "paged_linear"]


def _triton_runs(x: Tensor) -> bool:
    return x.is_cuda or bool(triton.knobs.runtime.interpret)


def paged_linear(
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
    """Computes y = x W^T + bias + ((x A^T) * s) B^T in two launches. Arguments as in `shrink` and `gemm_expand`.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    if _triton_runs(x):
        u = shrink(x, a_pool, s, tiles)
        return gemm_expand(x, w, u, b_pool, tiles, bias=bias, w_scale=w_scale)

    u = shrink_reference(x, a_pool, s, tiles)
    return gemm_expand_reference(x, w, u, b_pool, tiles, bias=bias, w_scale=w_scale).to(x.dtype)


def paged_add_(y: Tensor, x: Tensor, a_pool: Tensor, b_pool: Tensor, s: Tensor, tiles: Tiles) -> Tensor:
    """Adds ((x A^T) * s) B^T to the live rows of `y` in two launches. Arguments as in `shrink` and `expand_add_`.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    if _triton_runs(x):
        return expand_add_(y, shrink(x, a_pool, s, tiles), b_pool, tiles)

    return expand_add_reference_(y, shrink_reference(x, a_pool, s, tiles), b_pool, tiles)
