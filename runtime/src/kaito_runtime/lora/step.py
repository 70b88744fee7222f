"""What every kind of step has: the tokens of a forward pass, and which adapters are live on which of them.

The tables that layers read are made in `step_dense` (CPUs) and `step_paged` (the kernels); `routing` makes the steps.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kaito_runtime.lora.bank import Bank
from kaito_runtime.lora.records import AdapterVersion, ScalingTable, Span

__all__ = ["LiveRows", "Step"]


@dataclass(frozen=True, slots=True)
class LiveRows:
    """Consecutive tokens with the same adapters in a layer.

    Attributes:
        first: Index of the first token.
        tokens: How many there are.
        factors: strength * scaling of each adapter, none of them 0.
    """

    first: int
    tokens: int
    factors: Mapping[AdapterVersion, float]


class Step:
    """One forward pass.

    Attributes:
        tokens: Rows that each layer must see.
    """

    def __init__(self, spans: Sequence[Span], bank: Bank) -> None:
        self.tokens = sum(tokens for tokens, _ in spans)
        self._spans = spans
        # Read now: requests hold what is resident when the step is set, so it stays so while the step runs.
        self._pages = {version: bank.pages(version) for _, strengths in spans for version in strengths}

    def _live(self, scalings: ScalingTable) -> Iterator[LiveRows]:
        """Yields the tokens on which an adapter is live in a layer with these scalings."""
        first = 0
        for tokens, strengths in self._spans:
            factors = {v: s * scalings.scaling[v] for v, s in strengths.items() if v in scalings.scaling}
            if factors := {v: factor for v, factor in factors.items() if factor != 0.0}:
                yield LiveRows(first, tokens, factors)
            first += tokens

    def _ordered(self, versions: Collection[AdapterVersion]) -> list[AdapterVersion]:
        return sorted(versions, key=lambda version: self._pages[version])
