"""Catalog: which versions and strengths each model id answers with. Pure data and functions.

The rule: a model id answers with the newest configuration for which all its adapters are ready. `manager` loads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from kaito_core.api.messages import clipped
from kaito_core.api.serving import ServingConfig
from kaito_core.api.strength import DEFAULT_STRENGTH
from kaito_runtime.adapters.cards import BASE, Choice, Kind, ModelCard
from kaito_runtime.errors import RequestError
from kaito_runtime.lora.records import AdapterVersion

__all__ = ["AdapterState", "AdapterStatus", "Catalog"]


class AdapterState(StrEnum):
    """State of an adapter."""

    LOADING = "Loading"
    READY = "Ready"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class AdapterStatus:
    """State of one adapter as the configuration wants it.

    Attributes:
        version: The loaded version; None where it is not ready.
        message: Why it is not ready; "" where it is.
    """

    state: AdapterState = AdapterState.LOADING
    version: AdapterVersion | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """A configuration, the status of its adapters, and what each model id answers with meanwhile.

    Attributes:
        config: The newest configuration.
        statuses: Status by adapter name; an adapter without an entry is still loading.
        guests: Names of adapters that an admin loaded by request, besides those of the configuration. They are part of
            no blend and not of the default model id; a request names them.
        earlier: Cards that could be served before. One of them stands in where the newest configuration has a model id
            whose adapters are not all ready.
        cards: Every model id: the default, the base, each adapter, each blend.
    """

    config: ServingConfig
    statuses: Mapping[str, AdapterStatus] = field(default_factory=dict)
    guests: tuple[str, ...] = ()
    earlier: tuple[ModelCard, ...] = ()
    cards: tuple[ModelCard, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cards", tuple(self._serve(card) for card in self._declared_cards()))

    def changed(self, **changes: Any) -> Catalog:
        """Returns the catalog that follows this one: with other values of `config`, `statuses` or `guests`."""
        return replace(self, earlier=self.servable(), **changes)

    @property
    def mix(self) -> dict[str, float]:
        """The adapters of the default model id: all of the configuration's, each at its declared strength."""
        return {adapter.name: adapter.strength for adapter in self.config.adapters}

    @property
    def declared(self) -> dict[str, float]:
        """Every adapter with the strength that the newest configuration declares."""
        return self.mix | dict.fromkeys(self.guests, DEFAULT_STRENGTH)

    @property
    def serving_generation(self) -> int | None:
        """Generation that the default model id answers with; None while it cannot be served."""
        default = self.cards[0]
        return None if default.versions is None else default.generation

    @property
    def versions(self) -> frozenset[AdapterVersion]:
        """Every version that a request may get now or that a model id waits to switch to."""
        ready = (status.version for status in self.statuses.values() if status.version is not None)
        served = (version for card in self.servable() for version in (card.versions or {}).values())
        return frozenset((*ready, *served))

    def status(self, name: str) -> AdapterStatus:
        """Returns the status of an adapter."""
        return self.statuses.get(name, AdapterStatus(message="is being loaded"))

    def served_version(self, name: str) -> AdapterVersion | None:
        """Returns the version that the adapter's own model id answers with; None where it cannot be served."""
        card = next((card for card in self.cards if card.id == name and card.alone), None)
        return None if card is None or card.versions is None else card.versions[name]

    def servable(self) -> tuple[ModelCard, ...]:
        """Returns the model ids that a request may name now."""
        return tuple(card for card in self.cards if card.versions is not None)

    def card(self, model_id: str) -> ModelCard:
        """Returns the card of a model id.

        Raises:
            RequestError: The model id is unknown or an adapter that failed (404); or it cannot be served yet (503).
        """
        found = self._known(model_id)
        if found.versions is None:
            raise self._unusable(found, "model")
        return found

    def choose(self, model_id: str, overrides: Sequence[tuple[str, float | None]] | None) -> Choice:
        """Returns what a request is answered with.

        Args:
            model_id: The request's "model".
            overrides: The request's "adapters" as (name, strength): they replace the model id's own set. A strength of
                None is the declared one. None: the request has no "adapters".

        Raises:
            RequestError: As `card`; an override names an unknown or failed adapter (404), one that is not ready (503),
                or one twice (400).
        """
        if overrides is None:
            return Choice.of([self.card(model_id)])
        self._known(model_id)  # an override does not make an unknown model known
        chosen: dict[str, ModelCard] = {}
        for index, (name, strength) in enumerate(overrides):
            field = f"adapters[{index}].name"
            if name in chosen:
                raise RequestError(f"{field}: duplicate adapter '{name}'", param=field)
            card = self._adapter(name, field)
            chosen[name] = card if strength is None else replace(card, strengths={name: strength})
        return Choice.of(list(chosen.values()) or [self.card(BASE)])

    def _declared_cards(self) -> Iterator[ModelCard]:
        """Yields the model ids as the newest configuration declares them."""
        model, generation = self.config.model.name, self.config.generation
        yield ModelCard(Kind.DEFAULT, model, model, self.mix, generation)
        yield ModelCard(Kind.BASE, BASE, model, {}, generation)
        for name, strength in self.mix.items():
            yield ModelCard(Kind.ADAPTER, name, model, {name: strength}, generation)
        for name in self.guests:
            yield ModelCard(Kind.GUEST, name, model, {name: DEFAULT_STRENGTH}, generation)
        for blend in self.config.blends:
            yield ModelCard(Kind.BLEND, blend.name, model, dict(blend.strengths), generation)

    def _serve(self, declared: ModelCard) -> ModelCard:
        """Returns a card with the versions that it is served with: its own, or all of an earlier card's, never both."""
        versions = {name: self.status(name).version for name in declared.needs}
        ready = {name: version for name, version in versions.items() if version is not None}
        if len(ready) == len(versions):
            return replace(declared, versions=ready)
        before = next((card for card in self.earlier if card.stands_in_for(declared)), None)
        return declared if before is None else replace(before, id=declared.id, root=declared.root)

    def _known(self, model_id: str) -> ModelCard:
        found = next((card for card in self.cards if card.id == model_id), None)
        if found is not None:
            return found
        known = ", ".join(card.id for card in self.servable())
        raise RequestError(
            f"model: unknown model '{clipped(model_id)}', known: {known}",
            status=404,
            code="model_not_found",
            param="model",
        )

    def _adapter(self, name: str, field: str) -> ModelCard:
        """Returns the card of an adapter that a request's `field` names.

        Raises:
            RequestError: It is unknown or failed (404), or not ready (503).
        """
        found = next((card for card in self.cards if card.id == name and card.alone), None)
        if found is None:
            known = ", ".join(self.declared) or "none"
            message = f"{field}: unknown adapter '{clipped(name)}', known: {known}"
            raise RequestError(message, status=404, code="adapter_not_found", param=field)
        if found.versions is None:
            raise self._unusable(found, field)
        return found

    def _unusable(self, card: ModelCard, param: str) -> RequestError:
        """Returns the error of a model id that was never complete, with the words of the first adapter it lacks.

        A mix is 503 also where an adapter failed: it is part of the configuration and comes back when the adapter does.
        """
        missing = [name for name in card.needs if self.status(name).version is None]
        failed = [name for name in missing if self.status(name).state is AdapterState.FAILED]
        name = (failed or missing)[0]  # a failed one first: waiting does not help there
        whose = "" if card.alone else f" of model '{card.id}'"
        message = self.status(name).message
        if failed:
            message = f"adapter '{name}'{whose} failed to load: {message}"
            return RequestError(message, status=404 if card.alone else 503, code="adapter_failed", param=param)
        message = f"adapter '{name}'{whose} is not ready: {message}"
        return RequestError(message, status=503, code="adapter_loading", param=param, retry_after_seconds=1)
