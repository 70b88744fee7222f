"""Adapters on a mixture: on the stacked weights of its experts, and on its router. Both modules stay where they are.

A token is first computed by the model's own code together with all others, so that tokens without a live adapter keep
its bits. Tokens with one are computed again: by experts that each add the adapters' part to their two products, and by
routers whose weight has the adapters' part in it. Which experts a token takes is its router's choice, adapters and all.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kaito_runtime.lora.pages import PAGE, DensePool
from kaito_runtime.lora.records import ScalingTable
from kaito_runtime.lora.routing import Routing
from kaito_runtime.lora.step_dense import DenseStep

__all__ = ["ExpertLayer", "LoraExperts", "LoraRouter"]


class ExpertLayer:
    """The rank pages of one stacked weight, side by side for all experts.

    Attributes:
        experts: E.
        lora_shape: (E*K, E*N), where each expert is a `[N, K]` layer.
        adapter_shape: The same.
        pool: The rank pages.
        scalings: The scaling of each resident adapter in this weight; the bank sets it.
    """

    def __init__(self, experts: int, k: int, n: int, device: torch.device) -> None:
        self.experts = experts
        self.lora_shape = self.adapter_shape = (experts * k, experts * n)
        self.pool = DensePool(*self.lora_shape, device)
        self.scalings = ScalingTable({})

    @property
    def page_bytes(self) -> int:
        """Memory of one rank page, in bytes."""
        return sum(self.lora_shape) * PAGE * self.pool.itemsize

    def write(self, pages: Sequence[int], a: Tensor, b: Tensor) -> None:
        """Copies an adapter's `a` `[r, E*K]` and `b` `[E*N, r]` into `pages`, padded with zeros."""
        self.pool.write(pages, a, b)


class LoraExperts:
    """Replaces the forward pass of a module that holds the stacked weights of a mixture's experts.

    Args:
        base: The module; its forward takes tokens `[T, H]`, the experts of each `[T, k]`, and their weights `[T, k]`.
        routing: Its steps must be `DenseStep`s.
        first: Adapters of the product that widens.
        down: Adapters of the product that narrows.
    """

    def __init__(self, base: nn.Module, routing: Routing, first: ExpertLayer, down: ExpertLayer) -> None:
        self._base: Any = base
        self._routing = routing
        self._layers = (first, down)
        self._forward = base.forward
        base.forward = self.forward

    def forward(self, hidden_states: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Computes every token in its experts.

        Raises:
            ValueError: The step was set for another number of tokens.
        """
        step = cast(DenseStep | None, self._routing.step)
        if step is None:
            return cast(Tensor, self._forward(hidden_states, experts, weights))
        _check_tokens(hidden_states, step)
        added = [_Added.of(layer, step) for layer in self._layers]
        live = torch.zeros(step.tokens, dtype=torch.bool, device=hidden_states.device)
        for each in added:
            if each is not None:
                live |= (each.s != 0).any(1)
        if not any(added):
            return cast(Tensor, self._forward(hidden_states, experts, weights))
        rows = live.nonzero().squeeze(1)
        if len(rows) == step.tokens:
            return self._adapted(hidden_states, experts, weights, added)
        y = cast(Tensor, self._forward(hidden_states, experts, weights))
        chosen = [each and each.rows(rows) for each in added]
        y[rows] = self._adapted(hidden_states[rows], experts[rows], weights[rows], chosen)
        return y

    def _adapted(self, x: Tensor, experts: Tensor, weights: Tensor, added: Sequence["_Added | None"]) -> Tensor:
        base, per_token = self._base, experts.shape[-1]
        widening = "gate_up_proj" if base.has_gate else "up_proj"
        out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        order = experts.reshape(-1).argsort(stable=True)
        counts = experts.reshape(-1).bincount(minlength=base.num_experts).tolist()
        start = 0
        for expert, count in enumerate(counts[: base.num_experts]):
            if count:
                slots = order[start : start + count]
                tokens = slots // per_token
                h = self._product(widening, expert, x[tokens], tokens, added[0])
                h = base._apply_gate(h) if base.has_gate else base.act_fn(h)
                y = self._product("down_proj", expert, h, tokens, added[1])
                if base.has_post_expert_norm:
                    y = base.post_expert_norm(y)
                out.index_add_(0, tokens, (y * weights.reshape(-1)[slots, None]).float())
            start += count
        return out.to(x.dtype)

    def _product(self, name: str, expert: int, x: Tensor, tokens: Tensor, added: "_Added | None") -> Tensor:
        weight = getattr(self._base, name)[expert]
        bias = getattr(self._base, f"{name}_bias")[expert] if self._base.has_bias else None
        y = F.linear(x, weight.t() if self._base.is_transposed else weight, bias)
        return y if added is None else added.add(y, x, expert, tokens)


class _Added:
    """The adapters of one stacked weight that are live in a step.

    Attributes:
        s: `[T, R]` fp32, strength * scaling of each live rank on each token.
    """

    def __init__(self, a: Tensor, b: Tensor, s: Tensor) -> None:
        self._a, self._b, self.s = a, b, s

    @classmethod
    def of(cls, layer: ExpertLayer, step: DenseStep) -> "_Added | None":
        """Returns what is live, None for nothing."""
        work = step.together(layer.scalings)
        if work is None:
            return None
        a_t, b_t = layer.pool.live(work.ranks)
        s = torch.zeros(step.tokens, b_t.shape[0], device=b_t.device)
        s[slice(None) if work.rows is None else work.rows] = torch.as_tensor(work.s, device=b_t.device)
        return cls(a_t.view(layer.experts, -1, a_t.shape[1]), b_t.view(b_t.shape[0], layer.experts, -1), s)

    def rows(self, rows: Tensor) -> "_Added":
        """Returns the same for some tokens."""
        return _Added(self._a, self._b, self.s[rows])

    def add(self, y: Tensor, x: Tensor, expert: int, tokens: Tensor) -> Tensor:
        """Returns y + ((x A^T) * s) B^T of one expert."""
        u = x.float().mm(self._a[expert]) * self.s[tokens]
        return (y + u.mm(self._b[:, expert])).to(y.dtype)


class LoraRouter:
    """Replaces the forward pass of a module that chooses experts by the product of each token with its weight.

    Args:
        base: The module; whatever it returns has one row per token.
        routing: Its steps must be `DenseStep`s.

    Attributes:
        lora_shape, adapter_shape, pool, scalings: As in `LoraLinear`.
    """

    def __init__(self, base: nn.Module, routing: Routing) -> None:
        n, k = cast(Tensor, base.weight).shape
        self.lora_shape = self.adapter_shape = (k, n)
        self.pool = DensePool(k, n, cast(Tensor, base.weight).device)
        self.scalings = ScalingTable({})
        self._base, self._routing = base, routing
        self._forward: Callable[..., Any] = base.forward
        base.forward = self.forward

    @property
    def page_bytes(self) -> int:
        """Memory of one rank page, in bytes."""
        return sum(self.lora_shape) * PAGE * self.pool.itemsize

    def write(self, pages: Sequence[int], a: Tensor, b: Tensor) -> None:
        """Copies an adapter's `a` `[r, K]` and `b` `[N, r]` into `pages`, padded with zeros."""
        self.pool.write(pages, a, b)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Chooses the experts of every token.

        Raises:
            ValueError: The step was set for another number of tokens.
        """
        found = self._forward(hidden_states, *args, **kwargs)
        step = cast(DenseStep | None, self._routing.step)
        if step is None:
            return found
        x = hidden_states.reshape(-1, self.lora_shape[0])
        _check_tokens(x, step)
        for work in step.mixes(self.scalings):
            a_t, b_t = self.pool.live(work.ranks)
            rows = slice(None) if work.rows is None else work.rows
            weight = cast(Tensor, self._base.weight)
            delta = (a_t * torch.as_tensor(work.s, device=a_t.device)).mm(b_t).t()
            with _weight(self._base, (weight.float() + delta).to(weight.dtype)):
                changed = self._forward(x[rows], *args, **kwargs)
            pairs = zip(found, changed, strict=True) if isinstance(found, tuple) else ((found, changed),)
            for every, some in pairs:
                every[rows] = some
        return found


def _check_tokens(x: Tensor, step: DenseStep) -> None:
    if len(x) != step.tokens:
        raise ValueError(f"the strengths are set for {step.tokens} tokens, the mixture got {len(x)} ({list(x.shape)})")


@contextmanager
def _weight(module: nn.Module, weight: Tensor) -> Iterator[None]:
    """Gives a module another weight for a while. Only one thread runs the model."""
    own = module._parameters["weight"]
    module._parameters["weight"] = cast(nn.Parameter, weight)
    try:
        yield
    finally:
        module._parameters["weight"] = own
