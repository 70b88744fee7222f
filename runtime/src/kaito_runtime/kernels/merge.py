"""K4: W_merged = W + sum_j f_j B_j A_j over rank pages, from a pristine W into a second buffer. Opt-in.

Never in place: adding and taking away again drifts (in bf16, over a quarter of the weights had changed after a hundred
cycles). Worth it only where one strength vector holds for many steps; see docs/explanation/lora-kernels.md for what it
costs in exactness. Reference, Triton kernel, launcher.
"""

# mypy: allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from kaito_runtime.kernels.common import DTYPES, check_dtype, check_shape, current_target, pool_pages, same_device
from kaito_runtime.kernels.launch import PAGE, cdiv, merge_blocks

__all__ = ["merge_into", "merge_kernel", "merge_reference"]


def merge_reference(w: Tensor, a_pool: Tensor, b_pool: Tensor, pages: Tensor, factors: Tensor) -> Tensor:
    """K4 in plain torch, in the dtype of `factors`."""
    merged = w.to(factors.dtype)
    for page, factor in zip(pages.tolist(), factors, strict=True):
        a = a_pool.view(-1, PAGE, w.shape[1])[page].to(factors.dtype)
        merged = merged + factor * (b_pool[page].to(factors.dtype) @ a)
    return merged


@triton.jit(do_not_specialize=["COUNT"])
def merge_kernel(
    w_ptr,  # [N, K]
    a_ptr,  # [P*16, K]
    b_ptr,  # [P, N, 16]
    pages_ptr,  # [COUNT] int32
    factors_ptr,  # [COUNT] fp32
    out_ptr,  # [N, K]
    N,
    K,
    COUNT,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    UPCAST: tl.constexpr,
    PAGE: tl.constexpr,
):
    ns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    ks = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    ranks = tl.arange(0, PAGE)
    n_ok = ns < N
    k_ok = ks < K
    both = n_ok[:, None] & k_ok[None, :]
    acc = tl.load(w_ptr + ns[:, None] * K + ks[None, :], mask=both, other=0.0).to(tl.float32)
    for j in range(COUNT):
        page = tl.load(pages_ptr + j)
        factor = tl.load(factors_ptr + j)
        b = tl.load(b_ptr + page * N * PAGE + ns[:, None] * PAGE + ranks[None, :], mask=n_ok[:, None], other=0.0)
        a = tl.load(a_ptr + (page * PAGE + ranks)[:, None] * K + ks[None, :], mask=k_ok[None, :], other=0.0)
        if UPCAST:
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        # The factor goes on the fp32 product: on B it would be rounded.
        acc += factor * tl.dot(b, a, input_precision="ieee")
    tl.store(out_ptr + ns[:, None] * K + ks[None, :], acc.to(out_ptr.dtype.element_ty), mask=both)


def merge_into(out: Tensor, w: Tensor, a_pool: Tensor, b_pool: Tensor, pages: Tensor, factors: Tensor) -> Tensor:
    """Launches K4.

    Args:
        out: `[N, K]`, dtype of w; another buffer than `w`.
        w: `[N, K]` fp32, fp16 or bf16, never merged before.
        a_pool: `[P*16, K]`, dtype of w.
        b_pool: `[P, N, 16]`, dtype of w.
        pages: `[count]` int32.
        factors: `[count]` fp32, strength * scaling of each page.

    Returns:
        `out`.

    Raises:
        ValueError: Shapes, dtypes, strides or devices do not fit, or `out` is `w`.
    """
    if w.ndim != 2:
        raise ValueError(f"w has shape {list(w.shape)}, expected [N, K]")
    n, k = w.shape
    check_dtype("w", w, DTYPES)
    check_shape("w", w, (n, k), "[N, K]")
    check_dtype("out", out, (w.dtype,))
    check_shape("out", out, (n, k), "as w")
    if out.data_ptr() == w.data_ptr() and w.numel():
        raise ValueError(f"out and w are the same buffer at {w.data_ptr():#x}; merging in place would drift")
    for name, pool in (("a_pool", a_pool), ("b_pool", b_pool)):
        check_dtype(name, pool, (w.dtype,))
    count = pool_pages(a_pool, k)
    check_shape("a_pool", a_pool, (count * PAGE, k), f"K of w {list(w.shape)}")
    check_shape("b_pool", b_pool, (count, n, PAGE), f"pages of a_pool, N of w {list(w.shape)}")
    check_dtype("pages", pages, (torch.int32,))
    check_dtype("factors", factors, (torch.float32,))
    check_shape("factors", factors, tuple(pages.shape), "one factor per page")
    same_device(w=w, out=out, a_pool=a_pool, b_pool=b_pool, pages=pages, factors=factors)
    target = current_target()
    b = merge_blocks(w.itemsize)
    if w.numel():
        merge_kernel[(cdiv(n, b.n), cdiv(k, b.k))](
            w, a_pool, b_pool, pages, factors, out, n, k, pages.shape[0],
            BLOCK_N=b.n, BLOCK_K=b.k, UPCAST=target.interpret, PAGE=PAGE, num_warps=b.warps, num_stages=b.stages,
            enable_fp_fusion=True,
        )  # fmt: skip
    return out
