"""gemm_expand: y = x W^T + u B^T, where the K loop of the base product continues over the live rank pages.

y is stored once and never read. With programmatic dependent launch the kernel streams W while `shrink` still runs, and
waits for it only before the pages. Reference in plain torch, Triton kernel, launcher; `expand_add` has the same page
loop.
"""

# mypy: allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaito_runtime.kernels.common import FLOATING, NARROW, check_dtype, check_shape, same_device
from kaito_runtime.kernels.device import current_target
from kaito_runtime.kernels.launch import FP8_ARCHITECTURES, INT32_ELEMENTS, PAGE, ExpandBlocks, cdiv, gemm_expand_blocks
from kaito_runtime.kernels.tiles import Tiles

__all__ = [
    "add_pages",
    "check_pages",
    "expand_reference",
    "gemm_expand",
    "gemm_expand_kernel",
    "gemm_expand_reference",
]


def expand_reference(u: Tensor, b_pool: Tensor, tiles: Tiles) -> Tensor:
    """Computes u B^T in plain torch, `[T, N]` in the dtype of `u`. Planes are added first."""
    total = u.sum(0)
    y = total.new_zeros(total.shape[0], b_pool.shape[1])
    start = tiles.start.tolist()
    for tile in range(len(start) - 1):
        rows = slice(tile * tiles.block_t, (tile + 1) * tiles.block_t)
        for j, entry in enumerate(range(start[tile], start[tile + 1])):
            y[rows] += total[rows, j * PAGE : (j + 1) * PAGE] @ b_pool[tiles.pages[entry]].to(u.dtype).t()
    return y


def gemm_expand_reference(
    x: Tensor,
    w: Tensor,
    u: Tensor,
    b_pool: Tensor,
    tiles: Tiles,
    *,
    bias: Tensor | None = None,
    w_scale: Tensor | None = None,
) -> Tensor:
    """Computes y in plain torch, in the dtype of `u`."""
    y = x.to(u.dtype) @ w.to(u.dtype).t()
    if w_scale is not None:
        y = y * w_scale.to(u.dtype)
    if bias is not None:
        y = y + bias.to(u.dtype)
    return y + expand_reference(u, b_pool, tiles)


FP16_SAFE = tl.constexpr(32768.0)  # half of what fp16 can hold


@triton.jit
def add_pages(
    acc, u_ptr, b_ptr, start_ptr, pages_ptr, tile, rows, row_ok, ns, n_ok, T, N, WIDTH,
    SPLIT: tl.constexpr, UPCAST: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Computes acc + u B^T over the tile's live pages.

    In fp16, u is divided before it is rounded wherever it is beyond fp16's range, and the product multiplied again.
    """
    start = tl.load(start_ptr + tile)
    count = tl.load(start_ptr + tile + 1) - start
    ranks = tl.arange(0, PAGE)
    u_row = u_ptr + rows[:, None] * (WIDTH * PAGE) + ranks[None, :]
    b_row = b_ptr + ns[None, :] * PAGE + ranks[:, None]
    for j in range(count):
        page = tl.load(pages_ptr + start + j)
        u = tl.load(u_row + j * PAGE, mask=row_ok[:, None], other=0.0)
        for plane in tl.static_range(1, SPLIT):  # always in this order: the same bits every time
            u += tl.load(u_row + plane * T * (WIDTH * PAGE) + j * PAGE, mask=row_ok[:, None], other=0.0)
        b = tl.load(b_row + page * N * PAGE, mask=n_ok[None, :], other=0.0)
        if b.dtype == tl.float16:
            factor = tl.maximum(tl.max(tl.abs(u), axis=1), FP16_SAFE) / FP16_SAFE  # 1 for all rows but a few
            u = (u / factor[:, None]).to(b.dtype)
            if UPCAST:
                acc += tl.dot(u.to(tl.float32), b.to(tl.float32), input_precision="ieee") * factor[:, None]
            else:
                acc += tl.dot(u, b, input_precision="ieee") * factor[:, None]
        elif UPCAST:
            acc = tl.dot(u.to(b.dtype).to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
        else:
            acc = tl.dot(u.to(b.dtype), b, acc, input_precision="ieee")
    return acc


@triton.jit(do_not_specialize=["T", "WIDTH"])
def gemm_expand_kernel(
    x_ptr,  # [T, K]
    w_ptr,  # [N, K], rows W_STRIDE apart
    scale_ptr,  # [N] fp32, or w_ptr where unused
    bias_ptr,  # [N], or w_ptr where unused
    u_ptr,  # [SPLIT, T, WIDTH * 16] fp32
    b_ptr,  # [P, N, 16]
    start_ptr,  # [tiles + 1] int32
    pages_ptr,  # [entries] int32
    y_ptr,  # [T, N]
    T,
    N,
    K,
    W_STRIDE,
    WIDTH,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr,
    EVEN_K: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PDL: tl.constexpr,
    UPCAST: tl.constexpr,
    PAGE: tl.constexpr,
):
    tile = tl.program_id(0)  # fastest: programs that run together share a block of W
    rows = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    ns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    ks = tl.arange(0, BLOCK_K)
    row_ok = rows < T
    n_ok = ns < N
    x_ptrs = x_ptr + rows[:, None] * K + ks[None, :]
    w_ptrs = w_ptr + ns[None, :] * W_STRIDE + ks[:, None]
    acc = tl.zeros((BLOCK_T, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        if EVEN_K:
            x = tl.load(x_ptrs + k, mask=row_ok[:, None], other=0.0)
            w = tl.load(w_ptrs + k, mask=n_ok[None, :], other=0.0)
        else:
            k_ok = ks < K - k
            x = tl.load(x_ptrs + k, mask=row_ok[:, None] & k_ok[None, :], other=0.0)
            w = tl.load(w_ptrs + k, mask=n_ok[None, :] & k_ok[:, None], other=0.0)
        if UPCAST:
            x = x.to(tl.float32)
            w = w.to(tl.float32)
        elif HAS_SCALE:
            w = w.to(x.dtype)
        acc = tl.dot(x, w, acc, input_precision="ieee")
    if HAS_SCALE:  # before the pages: adapters are not quantised
        acc = acc * tl.load(scale_ptr + ns, mask=n_ok, other=0.0)[None, :]
    if HAS_BIAS:
        acc = acc + tl.load(bias_ptr + ns, mask=n_ok, other=0.0).to(tl.float32)[None, :]

    if PDL:
        tl.extra.cuda.gdc_wait()
    acc = add_pages(
        acc, u_ptr, b_ptr, start_ptr, pages_ptr, tile, rows, row_ok, ns, n_ok, T, N, WIDTH, SPLIT, UPCAST, PAGE
    )
    y_ptrs = y_ptr + rows[:, None] * N + ns[None, :]
    tl.store(y_ptrs, acc.to(y_ptr.dtype.element_ty), mask=row_ok[:, None] & n_ok[None, :])


def gemm_expand(
    x: Tensor,
    w: Tensor,
    u: Tensor,
    b_pool: Tensor,
    tiles: Tiles,
    *,
    bias: Tensor | None = None,
    w_scale: Tensor | None = None,
    blocks: ExpandBlocks | None = None,
    check: bool = True,
) -> Tensor:
    """Launches the kernel. With PDL it must directly follow the `shrink` that writes `u`, on the same stream.

    Args:
        x: `[T, K]` fp32, fp16 or bf16.
        w: `[N, K]`, dtype of x, or int8 or float8_e4m3fn with `w_scale`; rows may be further apart than K.
        u: `[planes, T, width * 16]` fp32, from `shrink`.
        b_pool: `[P, N, 16]`, dtype of x.
        tiles: The same as for `shrink`.
        bias: `[N]`, dtype of x.
        w_scale: `[N]` fp32, one factor per row of `w`.
        blocks: Replaces those of the table, in tests.
        check: Whether to check the arguments: once is enough for layers of one shape in one step.

    Returns:
        y `[T, N]`, dtype of x.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit.
    """
    if check:
        _check(x, w, u, b_pool, tiles, bias, w_scale)
    (t, k), n = x.shape, w.shape[0]
    target = current_target()
    if w.dtype is torch.float8_e4m3fn and target.arch not in FP8_ARCHITECTURES:
        raise ValueError(
            f"w has dtype {w.dtype}, which {target.arch} cannot multiply; {', '.join(FP8_ARCHITECTURES)} can"
        )
    b = blocks or gemm_expand_blocks(target.arch, tiles.block_t, x.itemsize, w.itemsize)
    if b.t != tiles.block_t:
        raise ValueError(f"blocks have {b.t} tokens, tiles have {tiles.block_t}")
    y = torch.empty(t, n, device=x.device, dtype=x.dtype)
    if t == 0:
        return y
    launch = {"launch_pdl": True} if target.pdl else {}
    gemm_expand_kernel[(cdiv(t, b.t), cdiv(n, b.n))](
        x, w, w if w_scale is None else w_scale, w if bias is None else bias, u, b_pool, tiles.start, tiles.pages, y,
        t, n, k, w.stride(0), tiles.width,
        BLOCK_T=b.t, BLOCK_N=b.n, BLOCK_K=b.k, SPLIT=u.shape[0], EVEN_K=k % b.k == 0, HAS_SCALE=w_scale is not None,
        HAS_BIAS=bias is not None, PDL=target.pdl, UPCAST=target.interpret, PAGE=PAGE, num_warps=b.warps,
        num_stages=b.stages, enable_fp_fusion=True, **launch,
    )  # fmt: skip
    return y


def check_pages(t: int, n: int, u: Tensor, b_pool: Tensor, tiles: Tiles, dtype: torch.dtype) -> None:
    """Checks that u, B and the lists fit `t` tokens and `n` out-features.

    Raises:
        ValueError: They do not.
    """
    check_dtype("u", u, (torch.float32,))
    if u.ndim != 3:
        raise ValueError(f"u has shape {list(u.shape)}, expected [planes, {t}, {tiles.width * PAGE}]")
    check_shape("u", u, (u.shape[0], t, tiles.width * PAGE), "[planes, tokens, width * 16]")
    check_dtype("b_pool", b_pool, (dtype,))
    if b_pool.ndim != 3:
        raise ValueError(f"b_pool has shape {list(b_pool.shape)}, expected [pages, {n}, {PAGE}]")
    check_shape("b_pool", b_pool, (b_pool.shape[0], n, PAGE), f"[pages, N, {PAGE}]")
    tiles.check(t)


def _check(
    x: Tensor, w: Tensor, u: Tensor, b_pool: Tensor, tiles: Tiles, bias: Tensor | None, w_scale: Tensor | None
) -> None:
    if x.ndim != 2 or w.ndim != 2:
        raise ValueError(f"x has shape {list(x.shape)} and w {list(w.shape)}, expected [tokens, K] and [N, K]")
    (t, k), n = x.shape, w.shape[0]
    check_dtype("x", x, FLOATING)
    check_shape("x", x, (t, k), "[tokens, K]")
    check_dtype("w", w, (x.dtype,) if w_scale is None else NARROW)
    if w.stride(1) != 1 and w.numel():
        raise ValueError(f"w has strides {list(w.stride())}, expected [{k} or more, 1]")
    if w.shape[1] != k:
        raise ValueError(f"w has shape {list(w.shape)}, expected [N, {k}] (K of x {list(x.shape)})")
    if n * w.stride(0) >= INT32_ELEMENTS:
        raise ValueError(f"w spans {n * w.stride(0)} elements, the kernels index fewer than {INT32_ELEMENTS}")
    check_pages(t, n, u, b_pool, tiles, x.dtype)
    if bias is not None:
        check_dtype("bias", bias, (x.dtype,))
        check_shape("bias", bias, (n,), f"N of w {list(w.shape)}")
    if w_scale is not None:
        check_dtype("w_scale", w_scale, (torch.float32,))
        check_shape("w_scale", w_scale, (n,), f"N of w {list(w.shape)}")
    same_device(x=x, w=w, u=u, b_pool=b_pool, bias=bias, w_scale=w_scale, start=tiles.start, pages=tiles.pages)
