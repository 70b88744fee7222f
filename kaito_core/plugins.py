"""PluginRegistry: finds plugins, keeps broken ones out without harm, and indexes what the others bring, by name.

No kopf here, no cluster and no logging policy: failures are kept as data and shown by whoever starts the process.
"""

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar

import pluggy
from importlib_metadata import EntryPoint, entry_points

from kaito_core import hookspecs
from kaito_core.api import AdapterSource, GpuSku, ModelPreset, NodeProvider, Workspace
from kaito_core.api.workspace import PROVIDER_ANNOTATION
from kaito_core.errors import (
    FieldError,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    UnknownHookError,
    UnknownPresetError,
    UnknownProviderError,
    UnknownSourceError,
)
from kaito_core.settings import Settings

__all__ = ["PluginInfo", "PluginRegistry"]

_VERSION_GROUP = f"{hookspecs.PROJECT}.api"


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What is known of one plugin, working or not.

    Attributes:
        name: Name of its entry point.
        distribution: "name version" of the distribution that brings it.
        module: What the entry point names.
        state: "loaded", "failed", or "skipped" by the allow and deny lists.
        error: Why it failed or was skipped, in a sentence.
        traceback: The failure's traceback, "" where there is none.
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
    import_seconds: float = 0.0
    presets: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_T = TypeVar("_T", bound=_Named)


@dataclass(frozen=True, slots=True)
class _Records:
    """What one plugin brings, collected and checked before any of it is registered."""

    presets: tuple[ModelPreset, ...] = ()
    providers: tuple[NodeProvider, ...] = ()
    sources: tuple[AdapterSource, ...] = ()


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""


def _checked(hook: str, results: Sequence[object], kind: type[_T]) -> tuple[_T, ...]:
    """Returns one plugin's answers to a record hook, flat.

    Raises:
        TypeError: An answer is no iterable of `kind`.
    """
    records: list[_T] = []
    for result in results:
        if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
            raise TypeError(f"{hook} must return a list of {kind.__name__}, got {type(result).__name__}")
        for record in result:
            if not isinstance(record, kind):
                raise TypeError(f"{hook} must return a list of {kind.__name__}, got an item {record!r:.200}")
            records.append(record)
    return tuple(records)


def _collect(plugin: object, name: str, settings: Settings) -> _Records:
    """Returns what a plugin brings, from a plugin manager of its own: a plugin that fails leaves no trace."""
    trial = _manager()
    trial.register(plugin, name)
    trial.check_pending()
    hook = trial.hook
    return _Records(
        presets=_checked("kaito_model_presets", hook.kaito_model_presets(), ModelPreset),
        providers=_checked("kaito_node_providers", hook.kaito_node_providers(settings=settings), NodeProvider),
        sources=_checked("kaito_adapter_sources", hook.kaito_adapter_sources(settings=settings), AdapterSource),
    )


@dataclass(slots=True)
class PluginRegistry:
    """Working plugins and their records.

    Make one with `discover`, or empty with `PluginRegistry()` and `register` for tests.
    """

    settings: Settings = field(default_factory=Settings)
    _manager: pluggy.PluginManager = field(default_factory=_manager)
    _infos: dict[str, PluginInfo] = field(default_factory=dict)
    _presets: dict[str, ModelPreset] = field(default_factory=dict)
    _providers: dict[str, NodeProvider] = field(default_factory=dict)
    _sources: dict[str, AdapterSource] = field(default_factory=dict)
    _origins: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def discover(cls, settings: Settings) -> "PluginRegistry":
        """Returns a registry of all installed plugins that the settings allow; failures are in `plugins`."""
        registry = cls(settings)
        found = sorted(entry_points(group=hookspecs.PROJECT), key=lambda entry: (entry.name, _distribution(entry)))
        versions = {(entry.name, _distribution(entry)): entry.value for entry in entry_points(group=_VERSION_GROUP)}
        # Ours come first, so that of two plugins with one name a third party's is the later one.
        for entry in sorted(found, key=lambda entry: not entry.value.startswith("kaito_core.")):
            asked = versions.get((entry.name, _distribution(entry)), f"v{hookspecs.API_VERSION}")
            registry._load(entry, asked)
        return registry

    def _load(self, entry: EntryPoint, asked_version: str) -> None:
        info = PluginInfo(entry.name, _distribution(entry), entry.value, "failed")
        if reason := self._refusal(entry.name):
            self._remember(replace(info, state="skipped", error=reason))
            return
        if asked_version != f"v{hookspecs.API_VERSION}":
            error = f"asks for plugin API {asked_version}, this kaito-core has v{hookspecs.API_VERSION}"
            self._remember(replace(info, error=f"{error}; install a version of it that fits"))
            return
        started = time.perf_counter()
        try:
            plugin = import_module(entry.module)
            for attribute in filter(None, (entry.attr or "").split(".")):
                plugin = getattr(plugin, attribute)
        except BaseException as error:  # a plugin may also call exit() while it is imported
            self._fail(info, error)
            return
        self._register(plugin, replace(info, import_seconds=time.perf_counter() - started))

    def register(self, plugin: object, name: str, distribution: str = "") -> None:
        """Registers a plugin object directly, as a test or an embedding program does.

        Raises:
            PluginError: It is broken; nothing of it is registered.
        """
        info = PluginInfo(name, distribution, getattr(plugin, "__name__", type(plugin).__name__), "failed")
        if error := self._register(plugin, info):
            raise error

    def _register(self, plugin: object, info: PluginInfo) -> PluginError | None:
        try:
            if info.name in self._infos:
                other = self._infos[info.name].distribution or "another plugin"
                raise PluginConflictError(f"the plugin name '{info.name}' is taken by {other}")
            records = _collect(plugin, info.name, self.settings)
            self._refuse_duplicates(records, info)
        except BaseException as error:
            return self._fail(info, error)
        self._manager.register(plugin, info.name)
        for preset in records.presets:
            self._presets[preset.name] = preset
            self._origins["preset", preset.name] = info.name
        for provider in records.providers:
            self._providers[provider.name] = provider
            self._origins["node provider", provider.name] = info.name
        for source in records.sources:
            self._origins["adapter source", source.name] = info.name
            for scheme in source.schemes:
                self._sources[scheme] = source
                self._origins["adapter scheme", scheme] = info.name
        self._remember(
            replace(
                info,
                state="loaded",
                presets=tuple(preset.name for preset in records.presets),
                providers=tuple(provider.name for provider in records.providers),
                sources=tuple(source.name for source in records.sources),
            )
        )
        return None

    def _refuse_duplicates(self, records: _Records, info: PluginInfo) -> None:
        seen: set[tuple[str, str]] = set()
        names: list[tuple[str, str]] = [
            *(("preset", preset.name) for preset in records.presets),
            *(("node provider", provider.name) for provider in records.providers),
            *(("adapter source", source.name) for source in records.sources),
            *(("adapter scheme", scheme) for source in records.sources for scheme in source.schemes),
        ]
        for kind, name in names:
            if (kind, name) in seen:
                raise PluginConflictError(f"brings the {kind} '{name}' twice")
            seen.add((kind, name))
            if (kind, name) in self._origins:
                first = self._infos[self._origins[kind, name]]
                brought = f"{first.name} ({first.distribution})" if first.distribution else first.name
                mine = f"{info.name} ({info.distribution})" if info.distribution else info.name
                raise PluginConflictError(
                    f"the {kind} '{name}' is provided by {brought} and by {mine}: uninstall one, or deny it with "
                    "KAITO_PLUGINS_DENY"
                )

    def _refusal(self, name: str) -> str:
        if name in self.settings.plugins_deny:
            return "it is on the deny list (KAITO_PLUGINS_DENY)"
        if self.settings.plugins_allow and name not in (*self.settings.plugins_allow, "builtin"):
            return "it is not on the allow list (KAITO_PLUGINS_ALLOW)"
        return ""

    def _fail(self, info: PluginInfo, error: BaseException) -> PluginError:
        if isinstance(error, KeyboardInterrupt):
            raise error
        kind: Callable[..., PluginError] = PluginLoadError
        if isinstance(error, PluginConflictError):
            kind = PluginConflictError
        elif isinstance(error, pluggy.PluginValidationError):
            kind = UnknownHookError
        text = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        failure = kind(text, plugin=info.name, distribution=info.distribution)
        failure.__cause__ = error
        lines = traceback.format_exception(error, limit=-20)  # the innermost frames: a recursion has a thousand
        self._remember(replace(info, state="failed", error=text, traceback="".join(lines)))
        return failure

    def _remember(self, info: PluginInfo) -> None:
        key = info.name
        while key in self._infos:  # a second plugin of the same name is kept too, to be shown
            key += "'"
        self._infos[key] = info

    @property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """All plugins that were found, in the order of loading."""
        return tuple(self._infos.values())

    @property
    def failures(self) -> tuple[PluginInfo, ...]:
        """The plugins that are left out because they are broken."""
        return tuple(info for info in self._infos.values() if info.state == "failed")

    @property
    def presets(self) -> Mapping[str, ModelPreset]:
        """Presets by name."""
        return MappingProxyType(self._presets)

    @property
    def providers(self) -> Mapping[str, NodeProvider]:
        """Node providers by name."""
        return MappingProxyType(self._providers)

    @property
    def sources(self) -> Mapping[str, AdapterSource]:
        """Adapter sources by scheme."""
        return MappingProxyType(self._sources)

    def origin(self, kind: str, name: str) -> str:
        """Returns the plugin that brings a record; kinds: "preset", "node provider", "adapter source"."""
        return self._origins[kind, name]

    def preset(self, name: str) -> ModelPreset:
        """Returns a preset.

        Raises:
            UnknownPresetError: No plugin brings it.
        """
        if name not in self._presets:
            raise UnknownPresetError(name, self._presets)
        return self._presets[name]

    def source(self, scheme: str, field_path: str) -> AdapterSource:
        """Returns the source of a scheme; `field_path` names the reference in the message.

        Raises:
            UnknownSourceError: No plugin brings it.
        """
        if scheme not in self._sources:
            raise UnknownSourceError(field_path, scheme, self._sources)
        return self._sources[scheme]

    def sku(self, instance_type: str) -> GpuSku | None:
        """Returns a machine type that a node provider knows, whatever its case, or None."""
        wanted = instance_type.lower()
        skus = (sku for provider in self._providers.values() for sku in provider.skus())
        return next((sku for sku in skus if sku.name.lower() == wanted), None)

    def provider(self, workspace: Workspace) -> NodeProvider:
        """Returns the node provider of a Workspace: the one it names, the settings' one, or the plugins' answer.

        Raises:
            UnknownProviderError: There is no such provider, or nobody answers.
        """
        asked = workspace.metadata.annotations.get(PROVIDER_ANNOTATION, "")
        if name := asked or self.settings.node_provider:
            if name not in self._providers:
                field_path = f"metadata.annotations[{PROVIDER_ANNOTATION}]" if asked else "KAITO_NODE_PROVIDER"
                raise UnknownProviderError(name, self._providers, field_path)
            return self._providers[name]
        candidates = [self._providers[name] for name in sorted(self._providers)]
        chosen = self._manager.hook.kaito_select_node_provider(workspace=workspace, candidates=candidates)
        if not isinstance(chosen, NodeProvider):
            raise UnknownProviderError(workspace.resource.instance_type, self._providers, "resource.instanceType")
        return chosen

    def objections(self, workspace: Workspace, preset: ModelPreset | None) -> list[FieldError]:
        """Returns what plugins object to; one whose hook raises is reported on stderr and does not count."""
        return self._ask_each("kaito_validate_workspace", FieldError, workspace=workspace, preset=preset)

    def reconciled(self, workspace: Workspace, outcome: str) -> None:
        """Tells the observers how a pass ended."""
        self._ask_each("kaito_reconciled", object, workspace=workspace, outcome=outcome)

    def _ask_each(self, hook: str, kind: type[Any], **arguments: object) -> list[Any]:
        answers: list[Any] = []
        for plugin in self._manager.get_plugins():
            others = [other for other in self._manager.get_plugins() if other is not plugin]
            caller = self._manager.subset_hook_caller(hook, others)
            try:
                answers.extend(_checked(hook, [result for result in caller(**arguments) if result is not None], kind))
            except Exception:
                name = self._manager.get_name(plugin)
                print(f"plugin '{name}': {hook} failed\n{traceback.format_exc()}", file=sys.stderr)
        return answers
