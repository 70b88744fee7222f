"""The layers that replace linear layers. The products are in `kernels`; `inject` puts the layers in place."""

import sys
from collections.abc import Callable, Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from kaito_runtime.kernels.dense import dense_add_
from kaito_runtime.kernels.dispatch import Base, Path, choose
from kaito_runtime.kernels.packed import (
    MIN_TOKENS,
    by_columns,
    by_columns_tokens,
    can_pack,
    pack,
    packed_linear,
    suits_columns,
)
from kaito_runtime.lora.pages import PAGE, DensePool, PagedPool
from kaito_runtime.lora.records import ScalingTable
from kaito_runtime.lora.routing import Routing
from kaito_runtime.lora.step_paged import PagedStep
from kaito_runtime.lora.targets import base_of, has_pdl, linear_shape

__all__ = ["LoraLinear", "PackedLinear"]


class LoraLinear(nn.Module):
    """y = W x + sum_i s_i * scaling_i * B_i (A_i x) with the strengths that `routing` holds for each token.

    Weight and bias are those of the layer that it replaces, under the same names. Tokens without a live adapter get,
    bit for bit, what this layer gives for the same batch with no adapter at all.

    Shapes:
        `[..., K]` to `[..., N]`; the leading dimensions are flattened to tokens in order.

    Attributes:
        lora_shape: (K, N) of the weight.
        adapter_shape: (K, N) of adapters for it, which is larger where the weight is one rank's part of a layer.
        pool: The layer's rank pages.
        scalings: The scaling of each resident adapter in this layer; the bank sets it.
    """

    def __init__(self, base: nn.Module, routing: Routing, pool: DensePool | PagedPool) -> None:
        super().__init__()
        shape = linear_shape(base)
        if shape is None:
            raise TypeError(f"{type(base).__name__} is not a linear layer")
        self.lora_shape = self.adapter_shape = shape
        # Layers of packed weights have none under this name: only they themselves can multiply by theirs.
        self.weight: Tensor = cast(Tensor, getattr(base, "weight", None))
        self.bias: Tensor | None = cast(Tensor | None, getattr(base, "bias", None))
        self.pool = pool
        self.scalings = ScalingTable({})
        self._routing = routing
        # A subclass, or a forward set on the instance, may compute the product in its own way, and its bits are the
        # truth: FalconLinear adds the bias apart, Conv1D has W transposed, quantised layers unpack theirs.
        plain = type(base) is nn.Linear and "forward" not in vars(base)
        self._base_forward: Callable[[Tensor], Tensor] | None = None if plain else base.forward
        self._base = base_of(base)
        self._w_scale = cast(Tensor | None, getattr(base, "weight_scale", None))
        self._pdl = has_pdl(pool.device)
        self._packed: Tensor | None = None
        self._packed_for = range(0)  # sizes of x, in elements, for which the packed product is the fastest

    @property
    def in_features(self) -> int:
        """K."""
        return self.lora_shape[0]

    @property
    def out_features(self) -> int:
        """N."""
        return self.lora_shape[1]

    @property
    def kind(self) -> tuple[object, ...]:
        """What the choice of kernels depends on; layers of one kind share their binaries."""
        weight = (self.weight.dtype, self.weight.stride()) if self._base is not Base.OPAQUE else ()
        return (*self.lora_shape, *weight, self.bias is None, self._base)

    @property
    def page_bytes(self) -> int:
        """Memory of one rank page, in bytes."""
        return sum(self.lora_shape) * PAGE * self.pool.itemsize

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies every token by the base weight and by the adapters that are live on it.

        Raises:
            ValueError: The step was set for another number of tokens.
        """
        step = self._routing.step
        if step is None:
            return self._product(x)
        k, n = self.lora_shape
        if x.numel() != step.tokens * k:
            raise ValueError(
                f"the strengths are set for {step.tokens} tokens, the layer got {x.numel() // k} ({list(x.shape)})"
            )
        if isinstance(step, PagedStep):
            return self._forward_paged(x, step)
        y = self._product(x)  # of x as it came: flattened before, torch may multiply in another order
        parts = step.parts.get(self.pool)
        for rows, a_t, b_t, s in step.plan(cast(DensePool, self.pool), self.scalings) if parts is None else parts:
            flat_x, flat_y = x.reshape(-1, k), y.view(-1, n)
            if rows is None:
                dense_add_(flat_y, flat_x, a_t, b_t, s)
            elif isinstance(rows, slice):
                dense_add_(flat_y[rows], flat_x[rows], a_t, b_t, s)
            else:  # only these rows: adding a zero to the others could turn -0.0 into 0.0
                flat_y[rows] = dense_add_(flat_y[rows], flat_x[rows], a_t, b_t, s)
        return y

    def _product(self, x: Tensor) -> Tensor:
        if self._packed is not None and x.numel() in self._packed_for:
            return packed_linear(x, self._packed, self.bias)
        if self._base_forward is not None:
            return self._base_forward(x)
        return F.linear(x, self.weight, self.bias)

    def _forward_paged(self, x: Tensor, step: PagedStep) -> Tensor:
        work = step.work(self.scalings)
        if work is None:
            return self._product(x)
        k, n = self.lora_shape
        path = choose(
            tokens=step.tokens, pages=work.pages, all_live=work.all_live, pdl=self._pdl, base=self._base, k=k, n=n
        )
        from kaito_runtime.kernels.paged import paged_add_, paged_linear  # imports Triton, which a CPU never needs

        a_pool, b_pool = cast(PagedPool, self.pool).pools
        flat_x = x.reshape(-1, k).contiguous()
        # Checking takes longer than launching: once for all layers of one kind.
        kind = (path, x.dtype, *self.kind)
        check = kind not in work.checked
        if path is Path.PAIR:
            y = paged_linear(
                flat_x, self.weight, a_pool, b_pool, work.s, work.tiles,
                bias=self.bias, w_scale=self._w_scale, check=check,
            )  # fmt: skip
            y = y.view(*x.shape[:-1], n)
        else:
            y = self._product(x)
        if path is Path.ADD:
            paged_add_(y.view(-1, n), flat_x, a_pool, b_pool, work.s, work.tiles, check=check)
        work.checked.add(kind)
        return y

    def write(self, pages: Sequence[int], a: Tensor, b: Tensor) -> None:
        """Copies an adapter's `a` `[r, K]` and `b` `[N, r]` into `pages`, padded with zeros."""
        self.pool.write(pages, a, b)

    def pack(self) -> None:
        """Lays the weight out for CPU products, where that is faster: a packed copy, columns before rows, or both."""
        if self._base is not Base.DENSE:
            return
        k, columns = self.in_features, self._base_forward is None and suits_columns(self.weight)
        if can_pack(self.weight):
            self._packed = pack(self.weight)
            first, end = (2 * k, by_columns_tokens(self.weight) * k) if columns else (MIN_TOKENS * k, sys.maxsize)
            self._packed_for = range(first, end)
        if columns:
            # A parameter of our own: the replaced layer, which somebody else may still use, keeps its layout.
            self.weight = nn.Parameter(by_columns(self.weight), requires_grad=False)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class PackedLinear(nn.Module):
    """A linear layer that no adapter targets, with a packed copy of its weight for steps of several tokens."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self._packed = pack(base.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies `[..., K]` to `[..., N]`."""
        if x.numel() >= MIN_TOKENS * self.weight.shape[1]:
            return packed_linear(x, self._packed, self.bias)
        return F.linear(x, self.weight, self.bias)
