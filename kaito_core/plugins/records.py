"""What one plugin brings: collected and checked before any of it is registered. Nothing here knows of other plugins."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pluggy

from kaito_core import hookspecs
from kaito_core.api import AdapterSource, ModelPreset, NodeProvider
from kaito_core.errors import UnknownHookError
from kaito_core.settings import Settings

__all__ = ["PluginInfo", "Records", "checked", "collect", "hook_manager"]


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What is known of one plugin, working or not.

    Attributes:
        name: Name of its entry point, or of its file without the suffix.
        distribution: "name version" of the distribution that brings it, "" where it is a file.
        module: What the entry point names, or the file.
        state: "loaded", "failed", or "skipped" by the allow and deny lists.
        error: Why it failed or was skipped, in a sentence.
        traceback: The failure's traceback, "" where there is none.
        remarks: What is odd about it though it works, such as what it changed in the process.
        file: Where its code is, "" where it was never found out.
        import_seconds: Time its import took.
        presets: Names of its presets.
        providers: Names of its node providers.
        sources: Names of its adapter sources.
    """

    name: str
    distribution: str
    module: str
    state: Literal["loaded", "failed", "skipped"]
    error: str = ""
    traceback: str = ""
    remarks: tuple[str, ...] = ()
    file: str = ""
    import_seconds: float = 0.0
    presets: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __str__(self) -> str:
        origin = self.distribution or self.file
        return f"{self.name} ({origin})" if origin else self.name


@dataclass(frozen=True, slots=True)
class Records:
    """What one plugin brings."""

    presets: tuple[ModelPreset, ...] = ()
    providers: tuple[NodeProvider, ...] = ()
    sources: tuple[AdapterSource, ...] = ()

    def names(self) -> list[tuple[str, str]]:
        """Returns everything that must be unique across plugins, as (kind, name)."""
        return [
            *(("preset", preset.name) for preset in self.presets),
            *(("node provider", provider.name) for provider in self.providers),
            *(("adapter source", source.name) for source in self.sources),
            *(("adapter scheme", scheme) for source in self.sources for scheme in source.schemes),
        ]


def hook_manager() -> pluggy.PluginManager:
    """Returns a plugin manager that knows the hooks and no plugin."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def checked(hook: str, answer: object, kind: type[Any]) -> tuple[Any, ...]:
    """Returns one answer to a hook that returns records.

    Raises:
        TypeError: It is no iterable of instances of `kind`.
    """
    if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
        raise TypeError(f"{hook} must return a list of {kind.__name__}, got {type(answer).__name__}")
    records = []
    for record in answer:
        # Protocols look at attributes alone, which the class has as well as its instances.
        if isinstance(record, type) or not isinstance(record, kind):
            raise TypeError(f"{hook} must return a list of {kind.__name__}, got an item {record!r:.200}")
        records.append(record)
    return tuple(records)


def collect(plugin: object, name: str, settings: Settings) -> Records:
    """Returns what a plugin brings, from a plugin manager of its own: a plugin that fails leaves no trace.

    Raises:
        Exception: Whatever its hooks raise, `TypeError` for an answer of the wrong type, and pluggy's or our own
            error for a hook that does not exist or cannot be called.
    """
    trial = hook_manager()
    trial.register(plugin, name)
    trial.check_pending()
    _check_functions(plugin, trial)

    def ask(hook: str, kind: type[Any], **arguments: object) -> tuple[Any, ...]:
        caller: Callable[..., list[object]] = getattr(trial.hook, hook)
        records = tuple(record for answer in caller(**arguments) for record in checked(hook, answer, kind))
        for record in records:
            _check_name(hook, record.name)
        return records

    sources = ask("kaito_adapter_sources", AdapterSource, settings=settings)
    for source in sources:
        if isinstance(source.schemes, str) or not all(isinstance(s, str) and s == s.lower() for s in source.schemes):
            raise TypeError(
                f"kaito_adapter_sources: the schemes of '{source.name}' must be a tuple of lower-case strings, got "
                f"{source.schemes!r:.200}"
            )
    return Records(
        presets=ask("kaito_model_presets", ModelPreset),
        providers=ask("kaito_node_providers", NodeProvider, settings=settings),
        sources=sources,
    )


def _check_name(hook: str, name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"{hook} must return records whose name is a string, got {name!r:.200}")


def _check_functions(plugin: object, trial: pluggy.PluginManager) -> None:
    """Raises an error for functions that would never be called, or not as their author expects."""
    marked: set[str] = set()
    for caller in trial.get_hookcallers(plugin) or ():
        marked.add(caller.name)
        for implementation in caller.get_hookimpls():
            function = implementation.function
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(f"{caller.name} must be a plain function: hooks are synchronous, it is `async def`")
            if implementation.wrapper or implementation.hookwrapper:
                raise TypeError(f"{caller.name} must be a plain function, not a wrapper of other plugins' hooks")
    for hook in vars(hookspecs):
        if hook.startswith("kaito_") and hook not in marked and callable(getattr(plugin, hook, None)):
            raise UnknownHookError(f"{hook} is not marked with @kaito_core.hookimpl, so it would never be called")
