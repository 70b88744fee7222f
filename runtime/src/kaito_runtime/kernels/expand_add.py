"""K3: y += u B^T over the live rank pages, beside a base product that another library made.

For large steps, where the library's product is the fastest there is, and for base weights that only their own layer can
unpack. Reference, Triton kernel, launcher.
"""

# mypy: allow-incomplete-defs

import triton
import triton.language as tl
from torch import Tensor

from kaito_runtime.kernels.common import DTYPES, check_dtype, check_shape, current_target, same_device
from kaito_runtime.kernels.gemm_expand_paged import add_pages, check_pages, expand_reference
from kaito_runtime.kernels.launch import PAGE, ExpandBlocks, cdiv, expand_add_blocks
from kaito_runtime.kernels.tiles import Tiles

__all__ = ["expand_add_", "expand_add_kernel", "expand_add_reference"]


def expand_add_reference(y: Tensor, u: Tensor, b_pool: Tensor, tiles: Tiles) -> Tensor:
    """K3 in plain torch, not in place, in the dtype of `u`."""
    return y.to(u.dtype) + expand_reference(u, b_pool, tiles)


@triton.jit(do_not_specialize=["T", "WIDTH"])
def expand_add_kernel(
    u_ptr,  # [SPLIT, T, WIDTH * 16] fp32
    b_ptr,  # [P, N, 16]
    start_ptr,  # [tiles + 1] int32
    pages_ptr,  # [entries] int32
    y_ptr,  # [T, N]
    T,
    N,
    WIDTH,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT: tl.constexpr,
    PDL: tl.constexpr,
    UPCAST: tl.constexpr,
    PAGE: tl.constexpr,
):
    tile = tl.program_id(0)
    if tl.load(start_ptr + tile + 1) == tl.load(start_ptr + tile):
        return  # nothing to add: y need not even be read
    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    ns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok = rows < T
    n_ok = ns < N
    y_ptrs = y_ptr + rows[:, None] * N + ns[None, :]
    both = row_ok[:, None] & n_ok[None, :]
    acc = tl.load(y_ptrs, mask=both, other=0.0).to(tl.float32)  # older than K1: safe before the wait
    if PDL:
        tl.extra.cuda.gdc_wait()
    acc = add_pages(
        acc, u_ptr, b_ptr, start_ptr, pages_ptr, tile, rows, row_ok, ns, n_ok, T, N, WIDTH, SPLIT, UPCAST, PAGE
    )
    tl.store(y_ptrs, acc.to(y_ptr.dtype.element_ty), mask=both)


def expand_add_(y: Tensor, u: Tensor, b_pool: Tensor, tiles: Tiles, *, blocks: ExpandBlocks | None = None) -> Tensor:
    """Launches K3. With PDL it must directly follow the K1 that writes `u`, on the same stream.

    Args:
        y: `[T, N]` fp32, fp16 or bf16; changed in place.
        u: `[planes, T, width * 16]` fp32, what K1 returned.
        b_pool: `[P, N, 16]`, dtype of y.
        tiles: The same as K1's.
        blocks: Instead of the table's, for tests and gates.

    Returns:
        `y`.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    if y.ndim != 2:
        raise ValueError(f"y has shape {list(y.shape)}, expected [tokens, N]")
    t, n = y.shape
    check_dtype("y", y, DTYPES)
    check_shape("y", y, (t, n), "[tokens, N]")
    check_pages(t, n, u, b_pool, tiles, y.dtype)
    same_device(y=y, u=u, b_pool=b_pool, start=tiles.start, pages=tiles.pages)
    target = current_target()
    b = blocks or expand_add_blocks(target.arch, tiles.block_m, y.itemsize)
    if b.m != tiles.block_m:
        raise ValueError(f"blocks have {b.m} tokens, tiles have {tiles.block_m}")
    if t == 0 or tiles.width == 0:
        return y
    launch = {"launch_pdl": True} if target.pdl else {}
    expand_add_kernel[(cdiv(t, b.m), cdiv(n, b.n))](
        u, b_pool, tiles.start, tiles.pages, y, t, n, tiles.width,
        BLOCK_M=b.m, BLOCK_N=b.n, SPLIT=u.shape[0], PDL=target.pdl, UPCAST=target.interpret, PAGE=PAGE,
        num_warps=b.warps, num_stages=b.stages, enable_fp_fusion=True, **launch,
    )  # fmt: skip
    return y
