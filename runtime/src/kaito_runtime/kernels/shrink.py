"""shrink: u = (x A^T) * s over the live rank pages. Reference in plain torch, Triton kernel, launcher.

K is cut into planes so that a few tokens still fill the device. The kernel that follows, `gemm_expand` or `expand_add`,
adds the planes in a fixed order: no atomics, and the same input gives the same bits.
"""

# mypy: allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaito_runtime.kernels.common import FLOATING, check_dtype, check_shape, pool_pages, same_device
from kaito_runtime.kernels.device import current_target
from kaito_runtime.kernels.launch import PAGE, ShrinkBlocks, cdiv, shrink_blocks
from kaito_runtime.kernels.tiles import Tiles

__all__ = ["shrink", "shrink_kernel", "shrink_reference"]


def shrink_reference(x: Tensor, a_pool: Tensor, s: Tensor, tiles: Tiles) -> Tensor:
    """Computes u in plain torch, in the dtype of `s`, as one plane `[1, T, width * 16]`."""
    u = s.new_zeros(1, x.shape[0], tiles.width * PAGE)
    start = tiles.start.tolist()
    for tile in range(len(start) - 1):
        rows = slice(tile * tiles.block_t, (tile + 1) * tiles.block_t)
        for j, entry in enumerate(range(start[tile], start[tile + 1])):
            a = a_pool.view(-1, PAGE, x.shape[1])[tiles.pages[entry]].to(s.dtype)
            product = (x[rows].to(s.dtype) @ a.t()) * s[rows, tiles.adapters[entry], None]
            u[0, rows, j * PAGE : (j + 1) * PAGE] = product
    return u


@triton.jit(do_not_specialize=["T", "A", "WIDTH"])
def shrink_kernel(
    x_ptr,  # [T, K]
    a_ptr,  # [P*16, K]
    s_ptr,  # [T, A] fp32
    start_ptr,  # [tiles + 1] int32
    pages_ptr,  # [entries] int32
    adapters_ptr,  # [entries] int32
    u_ptr,  # [SPLIT, T, WIDTH * 16] fp32
    T,
    K,
    A,
    WIDTH,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr,
    EVEN_K: tl.constexpr,
    PDL: tl.constexpr,
    UPCAST: tl.constexpr,
    TILE: tl.constexpr,
    PAGE: tl.constexpr,
):
    if PDL:
        # The next kernel may start now; before it reads u it waits for this whole grid.
        tl.extra.cuda.gdc_launch_dependents()
    tile = tl.program_id(0) * BLOCK_T // TILE
    block = tl.program_id(1)
    plane = tl.program_id(2)
    start = tl.load(start_ptr + tile)
    count = tl.load(start_ptr + tile + 1) - start
    if block * (BLOCK_R // PAGE) >= count:
        return

    rows = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    columns = block * BLOCK_R + tl.arange(0, BLOCK_R)
    row_ok = rows < T
    live = columns // PAGE < count
    page = tl.load(pages_ptr + start + columns // PAGE, mask=live, other=0)
    adapter = tl.load(adapters_ptr + start + columns // PAGE, mask=live, other=0)

    ks = tl.arange(0, BLOCK_K)
    x_ptrs = x_ptr + rows[:, None] * K + ks[None, :]
    a_ptrs = a_ptr + (page * PAGE + columns % PAGE)[None, :] * K + ks[:, None]
    per_plane = tl.cdiv(tl.cdiv(K, BLOCK_K), SPLIT) * BLOCK_K
    first = plane * per_plane
    acc = tl.zeros((BLOCK_T, BLOCK_R), dtype=tl.float32)
    for k in range(first, tl.minimum(first + per_plane, K), BLOCK_K):
        if EVEN_K:
            x = tl.load(x_ptrs + k, mask=row_ok[:, None], other=0.0)
            a = tl.load(a_ptrs + k, mask=live[None, :], other=0.0)
        else:
            k_ok = ks < K - k
            x = tl.load(x_ptrs + k, mask=row_ok[:, None] & k_ok[None, :], other=0.0)
            a = tl.load(a_ptrs + k, mask=live[None, :] & k_ok[:, None], other=0.0)
        if UPCAST:
            x = x.to(tl.float32)
            a = a.to(tl.float32)
        acc = tl.dot(x, a, acc, input_precision="ieee")

    both = row_ok[:, None] & live[None, :]
    s = tl.load(s_ptr + rows[:, None] * A + adapter[None, :], mask=both, other=0.0)
    u = tl.where(s != 0.0, acc * s, 0.0)  # strength 0 is exactly nothing, whatever the adapter holds
    u_ptrs = u_ptr + (plane * T + rows[:, None]) * (WIDTH * PAGE) + columns[None, :]
    tl.store(u_ptrs, u, mask=both)


def shrink(
    x: Tensor, a_pool: Tensor, s: Tensor, tiles: Tiles, *, blocks: ShrinkBlocks | None = None, check: bool = True
) -> Tensor:
    """Launches the kernel.

    Args:
        x: `[T, K]` fp32, fp16 or bf16.
        a_pool: `[P*16, K]`, dtype of x.
        s: `[T, A]` fp32, strength * scaling of each adapter on each token.
        tiles: The live pages of each tile of tokens.
        blocks: Replaces those of the table, in tests.
        check: Whether to check the arguments: once is enough for layers of one shape in one step.

    Returns:
        `[planes, T, width * 16]` fp32. Columns beyond a tile's own pages are not written.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    if check:
        _check(x, a_pool, s, tiles)
    t, k = x.shape
    target = current_target()
    b = blocks or shrink_blocks(target.arch, tiles.block_t, k, x.itemsize)
    if tiles.block_t % b.t:
        raise ValueError(f"blocks have {b.t} tokens, which do not divide the tiles' {tiles.block_t}")
    u = torch.empty(b.split, t, tiles.width * PAGE, device=x.device, dtype=torch.float32)
    if t == 0 or tiles.width == 0:
        return u
    grid = (cdiv(t, b.t), cdiv(tiles.width * PAGE, b.r), b.split)
    shrink_kernel[grid](
        x, a_pool, s, tiles.start, tiles.pages, tiles.adapters, u, t, k, s.shape[1], tiles.width,
        BLOCK_T=b.t, BLOCK_R=b.r, BLOCK_K=b.k, SPLIT=b.split, EVEN_K=k % b.k == 0, PDL=target.pdl,
        UPCAST=target.interpret, TILE=tiles.block_t, PAGE=PAGE, num_warps=b.warps, num_stages=b.stages,
        enable_fp_fusion=True,
    )  # fmt: skip
    return u


def _check(x: Tensor, a_pool: Tensor, s: Tensor, tiles: Tiles) -> None:
    if x.ndim != 2:
        raise ValueError(f"x has shape {list(x.shape)}, expected [tokens, K]")
    t, k = x.shape
    check_dtype("x", x, FLOATING)
    check_shape("x", x, (t, k), "[tokens, K]")
    check_dtype("a_pool", a_pool, (x.dtype,))
    check_shape("a_pool", a_pool, (pool_pages(a_pool, k) * PAGE, k), f"K of x {list(x.shape)}")
    check_dtype("s", s, (torch.float32,))
    check_shape("s", s, (t, s.shape[-1] if s.ndim else 0), f"tokens of x {list(x.shape)}")
    tiles.check(t)
    same_device(x=x, a_pool=a_pool, s=s, start=tiles.start, pages=tiles.pages, adapters=tiles.adapters)
