"""Catalog: which model ids exist, and which adapters at which strengths a request gets. Pure data and functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from kaito_core.api.serving import ServingConfig
from kaito_core.api.strength import DEFAULT_STRENGTH, parse_strength
from kaito_runtime.errors import RequestError

if TYPE_CHECKING:
    from kaito_runtime.lora.records import AdapterVersion

__all__ = ["BASE", "AdapterState", "Catalog", "ModelCard", "ServedVersion"]

BASE = "base"


class AdapterState(StrEnum):
    """What became of an adapter."""

    LOADING = "Loading"
    READY = "Ready"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """One adapter of the configuration, and what became of it.

    Attributes:
        version: What requests get. While a replacement is loading, that is still the version before it.
        message: Why it is not ready.
    """

    state: AdapterState = AdapterState.LOADING
    version: AdapterVersion | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model id.

    Attributes:
        root: The base model that it is computed from.
        parent: The model id that it refines; None for the base model.
        strengths: Every adapter in it, at its strength.
    """

    id: str
    root: str
    parent: str | None
    strengths: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Catalog:
    """A configuration together with what became of its adapters.

    Attributes:
        versions: By adapter name; adapters that are not in it are still loading.
        guests: Names of adapters that an admin loaded beside the configuration. They are in no mix but a request's own.
    """

    config: ServingConfig
    versions: Mapping[str, ServedVersion] = field(default_factory=dict)
    guests: tuple[str, ...] = ()

    @property
    def mix(self) -> dict[str, float]:
        """The configuration's adapters at their strengths, which together are the Workspace's model."""
        return {adapter.name: adapter.strength for adapter in self.config.adapters}

    @property
    def declared(self) -> dict[str, float]:
        """Every adapter at the strength that it has where a request names none."""
        return self.mix | dict.fromkeys(self.guests, DEFAULT_STRENGTH)

    def status(self, name: str) -> ServedVersion:
        """Returns what became of an adapter of the configuration."""
        return self.versions.get(name, ServedVersion(message="is being loaded"))

    def cards(self) -> tuple[ModelCard, ...]:
        """Returns every model id of the configuration: the Workspace's mix, the base, each adapter, each blend."""
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
            RequestError: There is none (404), one of its adapters failed (404), or is not there yet (503).
        """
        found = next((card for card in self.cards() if card.id == model_id), None)
        if found is None:
            known = ", ".join(card.id for card in self.servable())
            raise RequestError(
                f"model '{model_id}' does not exist, known: {known}", status=404, code="model_not_found", param="model"
            )
        for name in self._missing(found):
            whose = "" if name == model_id else f" of model '{model_id}'"
            raise self._unusable(name, whose, "model")
        return found

    def strengths(self, model_id: str, overrides: Sequence[object] | None) -> dict[AdapterVersion, float]:
        """Returns the adapter versions of a request at their strengths, without those of strength 0.

        Args:
            model_id: The request's "model".
            overrides: The request's "adapters", as JSON has it: it replaces the model id's own set. None is none.

        Raises:
            RequestError: As `card`, or an override names no adapter (404), or is malformed (400, names the field).
        """
        chosen = self.card(model_id).strengths if overrides is None else self._parse(model_id, overrides)
        versions = {self.status(name).version: strength for name, strength in chosen.items() if strength != 0}
        return {version: strength for version, strength in versions.items() if version is not None}

    def _parse(self, model_id: str, overrides: Sequence[object]) -> dict[str, float]:
        if not any(card.id == model_id for card in self.cards()):
            self.card(model_id)  # raises: an override does not make an unknown model known
        declared = self.declared
        chosen: dict[str, float] = {}
        for index, entry in enumerate(overrides):
            where = f"adapters[{index}]"
            if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
                raise RequestError(f'{where} must be {{"name": ..., "strength": ...}}, got {entry!r}', param=where)
            name = entry["name"]
            if name not in declared:
                known = ", ".join(declared) or "none"
                message = f"{where}.name: there is no adapter '{name}', known: {known}"
                raise RequestError(message, status=404, code="adapter_not_found", param=f"{where}.name")
            if name in chosen:
                raise RequestError(f"{where}.name: '{name}' stands there twice", param=f"{where}.name")
            if unknown := sorted(str(key) for key in entry if key not in ("name", "strength")):
                raise RequestError(f"{where} has unknown fields: {', '.join(unknown)}", param=where)
            if self.status(name).version is None:
                raise self._unusable(name, "", f"{where}.name")
            try:
                chosen[name] = parse_strength(entry.get("strength", declared[name]))
            except ValueError as error:
                raise RequestError(f"{where}.strength {error}", param=f"{where}.strength") from error
        return chosen

    def _missing(self, card: ModelCard) -> list[str]:
        """Returns the adapters that the card needs and that are not there; at strength 0 none is needed in a mix."""
        return [
            name
            for name, strength in card.strengths.items()
            if self.status(name).version is None and (strength != 0 or card.id == name)
        ]

    def _unusable(self, name: str, whose: str, param: str) -> RequestError:
        status = self.status(name)
        if status.state is AdapterState.FAILED:
            message = f"adapter '{name}'{whose} has failed and is not served: {status.message}"
            return RequestError(message, status=404, code="adapter_failed", param=param)
        message = f"adapter '{name}'{whose} is not ready: {status.message}"
        return RequestError(message, status=503, code="adapter_loading", param=param, retry_after_seconds=1)
