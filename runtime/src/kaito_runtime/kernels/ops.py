"""The same bodies as opaque torch operators, `torch.ops.kaito.*`, for torch.compile and export.

Registered with `torch.library.Library`: a fifth of `custom_op`'s cost per call, and `triton_op` would decompose into
the Triton kernel on CPU tensors too. Eager code calls the bodies directly. K1 and its follower are one operator, since
nothing may be scheduled between the two launches. Strengths are tensors: no value of theirs is ever part of a graph.
"""

# mypy: allow-untyped-calls

import torch
import torch.nn.functional as F
from torch import Tensor

from kaito_runtime.kernels.dense import cat_expand_
from kaito_runtime.kernels.merge import merge_into, merge_reference
from kaito_runtime.kernels.paged_linear import lora_add_, lora_linear
from kaito_runtime.kernels.tiles import Tiles

__all__ = ["LIBRARY"]

LIBRARY = torch.library.Library("kaito", "DEF")
_POOLS = (
    "Tensor a_pool, Tensor b_pool, Tensor s, Tensor start, Tensor pages, Tensor slots, SymInt block_m, SymInt width"
)

LIBRARY.define("cat_linear(Tensor x, Tensor w, Tensor? bias, Tensor a_t, Tensor b_t, Tensor s) -> Tensor")
LIBRARY.define(f"lora_linear(Tensor x, Tensor w, Tensor? bias, Tensor? w_scale, {_POOLS}) -> Tensor")
LIBRARY.define(f"lora_add_(Tensor(a!) y, Tensor x, {_POOLS}) -> ()")
LIBRARY.define("merge(Tensor w, Tensor a_pool, Tensor b_pool, Tensor pages, Tensor factors) -> Tensor")


def _cat_linear(x: Tensor, w: Tensor, bias: Tensor | None, a_t: Tensor, b_t: Tensor, s: Tensor) -> Tensor:
    return cat_expand_(F.linear(x, w, bias), x, a_t, b_t, s)


def _lora_linear(
    x: Tensor, w: Tensor, bias: Tensor | None, w_scale: Tensor | None,
    a_pool: Tensor, b_pool: Tensor, s: Tensor, start: Tensor, pages: Tensor, slots: Tensor, block_m: int, width: int,
) -> Tensor:  # fmt: skip
    tiles = Tiles(start, pages, slots, block_m, width)
    return lora_linear(x, w, a_pool, b_pool, s, tiles, bias=bias, w_scale=w_scale)


def _lora_add_(
    y: Tensor, x: Tensor, a_pool: Tensor, b_pool: Tensor, s: Tensor,
    start: Tensor, pages: Tensor, slots: Tensor, block_m: int, width: int,
) -> None:  # fmt: skip
    lora_add_(y, x, a_pool, b_pool, s, Tiles(start, pages, slots, block_m, width))


def _merge(w: Tensor, a_pool: Tensor, b_pool: Tensor, pages: Tensor, factors: Tensor) -> Tensor:
    return merge_into(torch.empty_like(w), w, a_pool, b_pool, pages, factors)


def _merge_cpu(w: Tensor, a_pool: Tensor, b_pool: Tensor, pages: Tensor, factors: Tensor) -> Tensor:
    return merge_reference(w, a_pool, b_pool, pages, factors).to(w.dtype)


for _key in ("CPU", "CUDA"):
    LIBRARY.impl("cat_linear", _cat_linear, _key)
    LIBRARY.impl("lora_linear", _lora_linear, _key)
    LIBRARY.impl("lora_add_", _lora_add_, _key)
LIBRARY.impl("merge", _merge_cpu, "CPU")
LIBRARY.impl("merge", _merge, "CUDA")


@torch.library.register_fake("kaito::cat_linear", lib=LIBRARY)
@torch.library.register_fake("kaito::lora_linear", lib=LIBRARY)
def _linear_fake(x: Tensor, w: Tensor, *_: object) -> Tensor:
    return x.new_empty((*x.shape[:-1], w.shape[0]))


@torch.library.register_fake("kaito::lora_add_", lib=LIBRARY)
def _lora_add_fake(y: Tensor, *_: object) -> None:
    del y


@torch.library.register_fake("kaito::merge", lib=LIBRARY)
def _merge_fake(w: Tensor, *_: object) -> Tensor:
    return torch.empty_like(w)
