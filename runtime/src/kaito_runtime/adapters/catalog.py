"""Catalog: the model ids, and the adapters and strengths that a request gets. Pure data and functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kaito_core.api.messages import clipped
from kaito_core.api.serving import ServingConfig
from kaito_core.api.strength import DEFAULT_STRENGTH
from kaito_runtime.errors import RequestError
from kaito_runtime.lora.records import AdapterVersion

__all__ = ["BASE", "AdapterState", "AdapterStatus", "Catalog", "ModelCard"]

BASE = "base"


class AdapterState(StrEnum):
    """State of an adapter."""

    LOADING = "Loading"
    READY = "Ready"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class AdapterStatus:
    """State of one adapter, and the version of it that requests get.

    Attributes:
        version: The loaded version; while a replacement is loading, still the one before it. None: nothing is served.
        message: Why the adapter is not ready; "" where it is.
    """

    state: AdapterState = AdapterState.LOADING
    version: AdapterVersion | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model id.

    Attributes:
        root: Name of the base model.
        parent: The model id that its adapters are applied to; None for the base model.
        strengths: Its adapters, each with its strength.
    """

    id: str
    root: str
    parent: str | None
    strengths: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Catalog:
    """A configuration together with the status of its adapters.

    Attributes:
        statuses: Status by adapter name; an adapter without an entry is still loading.
        guests: Names of adapters that an admin loaded by request, besides those of the configuration. They are part of
            no blend and not of the default model id; a request names them.
    """

    config: ServingConfig
    statuses: Mapping[str, AdapterStatus] = field(default_factory=dict)
    guests: tuple[str, ...] = ()

    @property
    def mix(self) -> dict[str, float]:
        """The adapters of the default model id: all of the configuration's, each at its declared strength."""
        return {adapter.name: adapter.strength for adapter in self.config.adapters}

    @property
    def declared(self) -> dict[str, float]:
        """Every adapter with its declared strength, which a request that names none gets."""
        return self.mix | dict.fromkeys(self.guests, DEFAULT_STRENGTH)

    def status(self, name: str) -> AdapterStatus:
        """Returns the status of an adapter."""
        return self.statuses.get(name, AdapterStatus(message="is being loaded"))

    def cards(self) -> tuple[ModelCard, ...]:
        """Returns every model id: the default, the base, each adapter, each blend."""
        model = self.config.model.name
        return (
            ModelCard(model, model, BASE, self.mix),
            ModelCard(BASE, model, None, {}),
            *(ModelCard(name, model, BASE, {name: strength}) for name, strength in self.declared.items()),
            *(ModelCard(blend.name, model, BASE, dict(blend.strengths)) for blend in self.config.blends),
        )

    def servable(self) -> tuple[ModelCard, ...]:
        """Returns the model ids that a request may name now."""
        return tuple(card for card in self.cards() if not self._missing(card))

    def card(self, model_id: str) -> ModelCard:
        """Returns the card of a model id.

        Raises:
            RequestError: The model id is unknown or one of its adapters failed (404), or is still loading (503).
        """
        found = next((card for card in self.cards() if card.id == model_id), None)
        if found is None:
            known = ", ".join(card.id for card in self.servable())
            raise RequestError(
                f"model: unknown model '{clipped(model_id)}', known: {known}",
                status=404,
                code="model_not_found",
                param="model",
            )
        for name in self._missing(found):  # the first is enough
            whose = "" if name == model_id else f" of model '{model_id}'"
            raise self._unusable(name, whose, "model")
        return found

    def choose(self, model_id: str, overrides: Sequence[tuple[str, float | None]] | None) -> dict[str, float]:
        """Returns the adapters of a request by name, each with its strength.

        Args:
            model_id: The request's "model".
            overrides: The request's "adapters" as (name, strength): they replace the model id's own set. A strength of
                None is the declared one. None: the request has no "adapters".

        Raises:
            RequestError: As `card`; an override names an unknown or failed adapter (404), one that is not ready (503),
                or one twice (400).
        """
        if overrides is None:
            return dict(self.card(model_id).strengths)
        if not any(card.id == model_id for card in self.cards()):
            self.card(model_id)  # raises: an override does not make an unknown model known
        declared = self.declared
        chosen: dict[str, float] = {}
        for index, (name, strength) in enumerate(overrides):
            field = f"adapters[{index}].name"
            if name in chosen:
                raise RequestError(f"{field}: duplicate adapter '{name}'", param=field)
            self._check_served(name, field)
            chosen[name] = declared[name] if strength is None else strength
        return chosen

    def resolve(self, chosen: Mapping[str, float]) -> dict[AdapterVersion, float]:
        """Returns the loaded versions of what `choose` returned, without those of strength 0.

        Raises:
            RequestError: An adapter was removed or has failed since (404).
        """
        found = {}
        for name, strength in chosen.items():
            if strength != 0:
                found[self._check_served(name, "model")] = strength
        return found

    def _check_served(self, name: str, field: str) -> AdapterVersion:
        """Returns the version that requests get under a name.

        Raises:
            RequestError: There is none; names the request's field.
        """
        if name not in self.declared:
            known = ", ".join(self.declared) or "none"
            message = f"{field}: unknown adapter '{clipped(name)}', known: {known}"
            raise RequestError(message, status=404, code="adapter_not_found", param=field)
        version = self.status(name).version
        if version is None:
            raise self._unusable(name, "", field)
        return version

    def _missing(self, card: ModelCard) -> list[str]:
        """Returns the adapters that a card needs and that are not loaded; at strength 0 a mix needs none."""
        return [
            name
            for name, strength in card.strengths.items()
            if self.status(name).version is None and (strength != 0 or card.id == name)
        ]

    def _unusable(self, name: str, whose: str, param: str) -> RequestError:
        status = self.status(name)
        if status.state is AdapterState.FAILED:
            message = f"adapter '{name}'{whose} failed to load: {status.message}"
            return RequestError(message, status=404, code="adapter_failed", param=param)
        message = f"adapter '{name}'{whose} is not ready: {status.message}"
        return RequestError(message, status=503, code="adapter_loading", param=param, retry_after_seconds=1)
