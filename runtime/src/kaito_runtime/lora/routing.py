"""Which strengths hold for which token of the next forward pass, and for which row of the output head.

`Routing.set` is all that changes between steps: one small table per set of scalings, whatever the model's size. What
the tables look like is in `step_dense` and `step_paged`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from kaito_runtime.lora.bank import Bank
from kaito_runtime.lora.records import Span
from kaito_runtime.lora.step_dense import DenseStep
from kaito_runtime.lora.step_paged import PagedStep

__all__ = ["MakeStep", "Routing"]

MakeStep = Callable[[Sequence[Span], Bank], DenseStep | PagedStep]


class Routing:
    """The strengths of the next forward pass. Only the thread that runs the model may use it.

    Args:
        bank: The resident adapters.
        make_step: Makes a step of spans.
        head: What the output head reads, which often sees fewer rows than the other layers; None: the same.
        mixture: What experts and routers read, which have no kernel; None: the same.

    Attributes:
        step: What the layers read; None is the base model.
        head: What the output head reads.
        mixture: What experts and routers read.
    """

    def __init__(
        self, bank: Bank, make_step: MakeStep, head: Routing | None = None, mixture: Routing | None = None
    ) -> None:
        self.step: DenseStep | PagedStep | None = None
        self.head = head
        self.mixture = mixture
        self._bank = bank
        self._make_step = make_step
        self._set: tuple[int, list[Span]] | None = None  # what `step` was made of: the bank's generation, live spans

    def set(self, spans: Sequence[Span], head: Sequence[Span] | None = None) -> None:
        """Replaces the strengths for all following forward passes.

        If they are those of the last one, as in most steps of a decode, everything computed for it is kept.

        Args:
            spans: (tokens, strengths) in the order of the packed tokens; no strengths is the base model. Their tokens
                must add up to the rows that each layer sees.
            head: The same for the output head, where it gets only the rows that a token is chosen from; None: it gets
                all tokens.

        Raises:
            ValueError: A strength is not finite, or a span has a negative number of tokens.
            KeyError: A version is not resident.
        """
        if self.head is not None and head is not None and head != spans:
            self.head.set(head)
        self._set_tokens(spans)
        if self.mixture is not None:
            self.mixture.set(spans)
        if self.head is not None and (head is None or head == spans):
            self.head.follow(self)

    def follow(self, other: Routing) -> None:
        """Takes the strengths of another routing, until the next `set`."""
        self.step, self._set = other.step, None

    def _set_tokens(self, spans: Sequence[Span]) -> None:
        for tokens, strengths in spans:
            if tokens < 0:
                raise ValueError(f"a span must have 0 tokens or more, got {tokens}")
            for version, strength in strengths.items():
                if not math.isfinite(strength):
                    raise ValueError(f"the strength of adapter '{version.name}' must be finite, got {strength!r}")
        live: list[Span] = [
            (tokens, {v: s for v, s in strengths.items() if s != 0}) for tokens, strengths in spans if tokens
        ]
        now = (self._bank.generation, live)
        if now == self._set:
            return
        self.step = self._make_step(live, self._bank) if any(strengths for _, strengths in live) else None
        self._set = now

    def clear(self) -> None:
        """Sets the base model for all tokens."""
        self.step = self._set = None
        for other in (self.head, self.mixture):
            if other is not None:
                other.clear()
