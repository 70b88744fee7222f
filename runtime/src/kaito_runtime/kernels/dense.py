"""The CPU path: A and B of all live adapters lie side by side, so their sum is two library products and one scaling.

No kernel of ours: on CPUs the library's products are the fastest there are, and what counts is how few are called.
"""

from torch import Tensor, float32

__all__ = ["dense_add_"]


def dense_add_(y: Tensor, x: Tensor, a_t: Tensor, b_t: Tensor, s: Tensor | float) -> Tensor:
    """Adds ((x A^T) * s) B^T to `y`, in place.

    Args:
        y: `[T, N]`, the base product; contiguous rows.
        x: `[T, K]`.
        a_t: `[K, R]` fp32, A of all live ranks side by side.
        b_t: `[R, N]` fp32.
        s: `[T, R]` or `[1, R]` fp32, strength * scaling of each rank on each token; a number if all are the same.

    Returns:
        `y`.
    """
    if y.dtype is not float32:
        # Narrow base weights: the adapters stay fp32, so the only rounding is that of the sum.
        return y.add_((x.to(float32).mm(a_t) * s).mm(b_t))
    if isinstance(s, float):
        return y.addmm_(x.mm(a_t), b_t, alpha=s)
    return y.addmm_(x.mm(a_t).mul_(s), b_t)
