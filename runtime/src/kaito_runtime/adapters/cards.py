"""The records of model ids: what each is made of, and what a request to it is answered with. `catalog` makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kaito_runtime.lora.records import AdapterVersion

__all__ = ["BASE", "Choice", "Kind", "ModelCard"]

BASE = "base"


class Kind(StrEnum):
    """What a model id stands for."""

    DEFAULT = "default"
    BASE = "base"
    ADAPTER = "adapter"
    GUEST = "guest"
    BLEND = "blend"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model id.

    Attributes:
        root: Name of the base model.
        strengths: Its adapters, each with its strength.
        generation: Generation of the configuration that declares these strengths.
        versions: Loaded version of each adapter that applies; None: the model id cannot be served.
    """

    kind: Kind
    id: str
    root: str
    strengths: Mapping[str, float]
    generation: int
    versions: Mapping[str, AdapterVersion] | None = None

    @property
    def parent(self) -> str | None:
        """The model id that its adapters are applied to; None for the base model."""
        return None if self.kind is Kind.BASE else BASE

    @property
    def alone(self) -> bool:
        """Whether it stands for one adapter, by that adapter's name."""
        return self.kind in (Kind.ADAPTER, Kind.GUEST)

    @property
    def needs(self) -> Iterator[str]:
        """Names of the adapters without which it cannot be served; at strength 0 a mix needs none."""
        return (name for name, strength in self.strengths.items() if strength != 0 or self.alone)

    def stands_in_for(self, other: ModelCard) -> bool:
        """Whether requests for `other` may be answered with this card of an earlier configuration."""
        return self.kind is other.kind and (self.id == other.id or self.kind is Kind.DEFAULT)


@dataclass(frozen=True, slots=True)
class Choice:
    """What one request is answered with.

    Attributes:
        strengths: Strength of each loaded version, without zeros.
        generation: Generation of the configuration that declares them.
    """

    strengths: Mapping[AdapterVersion, float]
    generation: int

    @classmethod
    def of(cls, cards: Sequence[ModelCard]) -> Choice:
        """Returns the sum of cards that can be served; of several generations, it is of the oldest."""
        strengths = {
            version: card.strengths[name]
            for card in cards
            for name, version in (card.versions or {}).items()
            if card.strengths[name] != 0
        }
        return cls(strengths, min(card.generation for card in cards))
