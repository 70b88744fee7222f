"""Which strengths hold for which token of the next forward pass.

`Routing.set` is all that changes between steps: one small table per profile (see `bank`), whatever the model's size.
How a table looks is `steps`' business.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from kaito_runtime.lora.bank import Bank
from kaito_runtime.lora.records import AdapterVersion, Span
from kaito_runtime.lora.steps import CatStep, PagedStep

__all__ = ["Routing", "Span"]


class Routing:
    """The strengths of the next forward pass. Belongs to the thread that runs the model.

    Attributes:
        step: What the layers read; None is the base model.
    """

    def __init__(self, bank: Bank, make_step: Callable[[Sequence[Span], Bank], CatStep | PagedStep]) -> None:
        self.step: CatStep | PagedStep | None = None
        self.merged: Mapping[AdapterVersion, float] | None = None
        self._bank = bank
        self._make_step = make_step
        self._set: tuple[int, list[Span]] | None = None  # what `step` was made of: the bank's generation, live spans

    def set(self, spans: Sequence[Span]) -> None:
        """Replaces the strengths for all following forward passes. Where they are those of the last one, as in most
        steps of a decode, all that was computed for it is kept.

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
        step = self._make_step(live, self._bank) if any(strengths for _, strengths in live) else None
        if step is not None:
            step.merged = self.merged is not None and all(strengths == self.merged for _, strengths in live)
        self.step, self._set = step, now

    def clear(self) -> None:
        """Base model for all tokens."""
        self.step = self._set = None
