"""A whole LoRA layer over rank pages: `shrink`, then `gemm_expand` or `expand_add`, with nothing in between, as
programmatic dependent launch needs it. Which of the two is decided in `dispatch`.

Without a GPU and without Triton's interpreter the references run, in fp32: slow, but right and on the same layout, so
that everything above the kernels is tested on any machine. GPUs that are too old for the kernels take this way, too.
"""

from functools import cache

import torch
import triton
from torch import Tensor

from kaito_runtime.kernels.expand_add import expand_add_, expand_add_reference_
from kaito_runtime.kernels.gemm_expand import gemm_expand, gemm_expand_reference
from kaito_runtime.kernels.launch import PAGE, has_kernels
from kaito_runtime.kernels.shrink import shrink, shrink_reference
from kaito_runtime.kernels.tiles import Tiles

__all__ = ["paged_add_", "paged_embed_add_", "paged_linear"]


def _triton_runs(x: Tensor) -> bool:
    return _has_kernels(x.device) if x.is_cuda else bool(triton.knobs.runtime.interpret)


@cache
def _has_kernels(device: torch.device) -> bool:
    major, minor = torch.cuda.get_device_capability(device)
    return has_kernels("hip" if torch.version.hip else "cuda", 10 * major + minor)


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
    check: bool = True,
) -> Tensor:
    """Computes y = x W^T + bias + ((x A^T) * s) B^T in two launches. Arguments as in `shrink` and `gemm_expand`.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    if _triton_runs(x):
        u = shrink(x, a_pool, s, tiles, check=check)
        return gemm_expand(x, w, u, b_pool, tiles, bias=bias, w_scale=w_scale, check=check)

    u = shrink_reference(x, a_pool, s, tiles)
    return gemm_expand_reference(x, w, u, b_pool, tiles, bias=bias, w_scale=w_scale).to(x.dtype)


def paged_add_(
    y: Tensor, x: Tensor, a_pool: Tensor, b_pool: Tensor, s: Tensor, tiles: Tiles, *, check: bool = True
) -> Tensor:
    """Adds ((x A^T) * s) B^T to the live rows of `y` in two launches. Arguments as in `shrink` and `expand_add_`.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    if _triton_runs(x):
        return expand_add_(y, shrink(x, a_pool, s, tiles, check=check), b_pool, tiles, check=check)

    return expand_add_reference_(y, shrink_reference(x, a_pool, s, tiles), b_pool, tiles)


def paged_embed_add_(y: Tensor, ids: Tensor, a_pool: Tensor, b_pool: Tensor, s: Tensor, tiles: Tiles) -> Tensor:
    """Adds (A^T[ids] * s) B^T to the live rows of `y`: `paged_add_` of one-hot rows, without the product with zeros.

    Args:
        y: `[T, N]`.
        ids: `[T]`, columns of A.
        a_pool: `[P*16, K]`.
        b_pool: `[P, N, 16]`.
        s: `[T, A]` fp32, strength * scaling of each adapter on each token.
        tiles: The live pages of each tile of tokens.
    """
    u = _look_up(ids, a_pool, s, tiles)
    return expand_add_(y, u, b_pool, tiles) if _triton_runs(y) else expand_add_reference_(y, u, b_pool, tiles)


def _look_up(ids: Tensor, a_pool: Tensor, s: Tensor, tiles: Tiles) -> Tensor:
    """Returns u as `shrink` does, `[1, T, width * 16]` fp32. Its shapes are known on the host: nothing waits."""
    tile = torch.arange(len(ids), device=ids.device) // tiles.block_t
    entry = tiles.start[tile, None] + torch.arange(tiles.width, device=ids.device)
    there = entry < tiles.start[tile + 1, None]
    entry = torch.where(there, entry, 0)
    factor = torch.where(there, s.gather(1, tiles.adapters[entry].long()), 0.0)  # [T, width]
    ranks = tiles.pages[entry, None].long() * PAGE + torch.arange(PAGE, device=ids.device)
    # Strength 0 is exactly nothing, whatever the page holds.
    u = torch.where(factor[..., None] != 0, a_pool[ranks, ids[:, None, None]].float() * factor[..., None], 0.0)
    return u.reshape(1, len(ids), -1)
