"""The records of one plugin of the operator: collected from its hooks and checked. Other plugins are not looked at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from kaito_core.api import AdapterSource, ModelPreset, NodeProvider
from kaito_core.errors import PluginConflictError
from kaito_core.plugins.loader import checked
from kaito_core.settings import Settings

__all__ = ["Records", "collect"]


@dataclass(frozen=True, slots=True)
class Records:
    """What one plugin brings.

    Attributes:
        by_scheme: Its sources by scheme, without the schemes that the settings give to another source.
    """

    presets: tuple[ModelPreset, ...] = ()
    providers: tuple[NodeProvider, ...] = ()
    sources: tuple[AdapterSource, ...] = ()
    by_scheme: Mapping[str, AdapterSource] = field(default_factory=dict)

    def names(self) -> list[tuple[str, str]]:
        """Returns everything that must be unique across plugins, as (kind, name)."""
        return [
            *(("preset", preset.name) for preset in self.presets),
            *(("node provider", provider.name) for provider in self.providers),
            *(("adapter source", source.name) for source in self.sources),
            *(("adapter scheme", scheme) for scheme in self.by_scheme),
        ]


def collect(hooks: pluggy.HookRelay, settings: Settings) -> Records:
    """Returns what a plugin brings.

    Args:
        hooks: The hooks of that plugin alone.

    Raises:
        Exception: Whatever its hooks raise, and `TypeError` for an answer of the wrong type.
    """

    def ask(hook: str, kind: type[Any], **arguments: object) -> tuple[Any, ...]:
        caller: Callable[..., list[object]] = getattr(hooks, hook)
        records = tuple(record for answer in caller(**arguments) for record in checked(hook, answer, kind))
        for record in records:
            if not isinstance(record.name, str) or not record.name:
                raise TypeError(f"{hook} must return records whose name is a string, got {record.name!r:.200}")
        return records

    sources = ask("kaito_adapter_sources", AdapterSource, settings=settings)
    for source in sources:
        if isinstance(source.schemes, str) or not all(isinstance(s, str) and s == s.lower() for s in source.schemes):
            raise TypeError(
                f"kaito_adapter_sources: the schemes of '{source.name}' must be a tuple of lower-case strings, got "
                f"{source.schemes!r:.200}"
            )
    by_scheme: dict[str, AdapterSource] = {}
    for source in sources:
        for scheme in source.schemes:
            if scheme in by_scheme:
                raise PluginConflictError(
                    f"duplicate adapter scheme '{scheme}': it is brought twice by the same plugin"
                )
            if settings.source_of(scheme) in ("", source.name):
                by_scheme[scheme] = source
    return Records(
        presets=ask("kaito_model_presets", ModelPreset),
        providers=ask("kaito_node_providers", NodeProvider, settings=settings),
        sources=sources,
        by_scheme=by_scheme,
    )
