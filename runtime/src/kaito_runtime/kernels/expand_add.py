"""expand_add: y += u B^T over the live rank pages, beside a base product that another library computed.

For large steps, where the library's product is the fastest, for base weights that only their own layer can multiply by,
and for steps in which some tokens have no adapter: a row that nothing is added to is neither read nor written, so it
keeps the bits of the base product. Reference in plain torch, Triton kernel, launcher.
"""

# mypy: allow-incomplete-defs

import triton
import triton.language as tl
from torch import Tensor

from kaito_runtime.kernels.common import FLOATING, check_dtype, check_shape, same_device
from kaito_runtime.kernels.device import current_target
from kaito_runtime.kernels.gemm_expand import add_pages, check_pages, expand_reference
from kaito_runtime.kernels.launch import PAGE, ExpandBlocks, cdiv, expand_add_blocks
from kaito_runtime.kernels.tiles import Tiles

__all__ = ["expand_add_", "expand_add_kernel", "expand_add_reference_"]


def expand_add_reference_(y: Tensor, u: Tensor, b_pool: Tensor, tiles: Tiles) -> Tensor:
    """Adds u B^T to the live rows of `y` in plain torch, in place."""
    live = tiles.live.bool()
    y[live] += expand_reference(u, b_pool, tiles)[live]
    return y


@triton.jit(do_not_specialize=["T", "WIDTH"])
def expand_add_kernel(
    u_ptr,  # [SPLIT, T, WIDTH * 16] fp32
    b_ptr,  # [P, N, 16]
    start_ptr,  # [tiles + 1] int32
    pages_ptr,  # [entries] int32
    live_ptr,  # [T] int32
    y_ptr,  # [T, N]
    T,
    N,
    WIDTH,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    SPLIT: tl.constexpr,
    PDL: tl.constexpr,
    UPCAST: tl.constexpr,
    PAGE: tl.constexpr,
):
    tile = tl.program_id(0)
    if tl.load(start_ptr + tile + 1) == tl.load(start_ptr + tile):
        return
    rows = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    ns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = tl.load(live_ptr + rows, mask=rows < T, other=0) != 0
    n_ok = ns < N
    y_ptrs = y_ptr + rows[:, None] * N + ns[None, :]
    both = live[:, None] & n_ok[None, :]
    acc = tl.load(y_ptrs, mask=both, other=0.0).to(tl.float32)  # older than shrink: safe before the wait
    if PDL:
        tl.extra.cuda.gdc_wait()
    acc = add_pages(
        acc, u_ptr, b_ptr, start_ptr, pages_ptr, tile, rows, live, ns, n_ok, T, N, WIDTH, SPLIT, UPCAST, PAGE
    )
    tl.store(y_ptrs, acc.to(y_ptr.dtype.element_ty), mask=both)


def expand_add_(
    y: Tensor, u: Tensor, b_pool: Tensor, tiles: Tiles, *, blocks: ExpandBlocks | None = None, check: bool = True
) -> Tensor:
    """Launches the kernel. With PDL it must directly follow the `shrink` that writes `u`, on the same stream.

    Args:
        y: `[T, N]` fp32, fp16 or bf16; its live rows are changed in place.
        u: `[planes, T, width * 16]` fp32, from `shrink`.
        b_pool: `[P, N, 16]`, dtype of y.
        tiles: The same as for `shrink`.
        blocks: Replaces those of the table, in tests.
        check: Whether to check the arguments: once is enough for layers of one shape in one step.

    Returns:
        `y`.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    if check:
        _check(y, u, b_pool, tiles)
    t, n = y.shape
    target = current_target()
    b = blocks or expand_add_blocks(target.arch, tiles.block_t, y.itemsize)
    if b.t != tiles.block_t:
        raise ValueError(f"blocks have {b.t} tokens, tiles have {tiles.block_t}")
    if t == 0 or tiles.width == 0:
        return y
    launch = {"launch_pdl": True} if target.pdl else {}
    expand_add_kernel[(cdiv(t, b.t), cdiv(n, b.n))](
        u, b_pool, tiles.start, tiles.pages, tiles.live, y, t, n, tiles.width,
        BLOCK_T=b.t, BLOCK_N=b.n, SPLIT=u.shape[0], PDL=target.pdl, UPCAST=target.interpret, PAGE=PAGE,
        num_warps=b.warps, num_stages=b.stages, enable_fp_fusion=True, **launch,
    )  # fmt: skip
    return y


def _check(y: Tensor, u: Tensor, b_pool: Tensor, tiles: Tiles) -> None:
    if y.ndim != 2:
        raise ValueError(f"y has shape {list(y.shape)}, expected [tokens, N]")
    t, n = y.shape
    check_dtype("y", y, FLOATING)
    check_shape("y", y, (t, n), "[tokens, N]")
    check_pages(t, n, u, b_pool, tiles, y.dtype)
    same_device(y=y, u=u, b_pool=b_pool, start=tiles.start, pages=tiles.pages, live=tiles.live)
