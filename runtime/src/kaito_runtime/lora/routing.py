"""Which strengths hold for which token of the next forward pass.

`Routing.set` is all that changes between steps: one small table per set of scalings, whatever the model's size. What
the tables look like is in `step_dense` and `step_paged`.
"""

import math
from collections.abc import Callable, Sequence

from kaito_runtime.lora.bank import Bank
from kaito_runtime.lora.records import Span
from kaito_runtime.lora.step_dense import DenseStep
from kaito_runtime.lora.step_paged import PagedStep

__all__ = ["Routing"]


class Routing:
    """The strengths of the next forward pass. Only the thread that runs the model may use it.

    Attributes:
        step: What the layers read; None is the base model.
    """

    def __init__(self, bank: Bank, make_step: Callable[[Sequence[Span], Bank], DenseStep | PagedStep]) -> None:
        self.step: DenseStep | PagedStep | None = None
        self._bank = bank
        self._make_step = make_step
        self._set: tuple[int, list[Span]] | None = None  # what `step` was made of: the bank's generation, live spans

    def set(self, spans: Sequence[Span]) -> None:
        """Replaces the strengths for all following forward passes.

        If they are those of the last one, as in most steps of a decode, everything computed for it is kept.

        Args:
            spans: (tokens, strengths) in the order of the packed tokens; no strengths is the base model. Their tokens
                must add up to the rows that each layer sees.

        Raises:
            ValueError: A strength is not finite, or a span has a negative number of tokens.
            KeyError: A version is not resident.
        """
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
