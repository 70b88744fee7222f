"""PluginRegistry: the installed plugins, and what the working ones bring, by name."""

import logging
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import pluggy
from pydantic import ValidationError

from kaito_core.api import AdapterSource, GpuSku, ModelPreset, NodeProvider, Weights, Workspace
from kaito_core.api.workspace.model import PROVIDER_ANNOTATION
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
from kaito_core.plugins.candidates import Candidate, find_candidates
from kaito_core.plugins.local_presets import folder_preset, local_preset
from kaito_core.plugins.preset_errors import preset_faults
from kaito_core.plugins.process_state import ProcessState
from kaito_core.plugins.records import PluginInfo, Records, checked, collect, hook_manager
from kaito_core.settings import Settings

__all__ = ["PluginRegistry"]

_BUILTIN = "builtin"
_log = logging.getLogger(__name__)


def _with_changes(info: PluginInfo, before: ProcessState | None) -> PluginInfo:
    return info if before is None else replace(info, remarks=(*info.remarks, *before.changes()))


def _words(error: BaseException) -> str:
    if isinstance(error, ValidationError) and error.title in (ModelPreset.__name__, Weights.__name__):
        return f"{error.title}: {'; '.join(words for _, words in preset_faults(error))}"
    try:
        text = str(error)
    except Exception:  # a plugin's own exception class may be broken too
        text = "(its message cannot be read)"
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


@dataclass(slots=True)
class PluginRegistry:
    """Working plugins and their records.

    Make one with `discover`, or empty with `PluginRegistry()` and `register` for tests.
    """

    settings: Settings = field(default_factory=Settings)
    _manager: pluggy.PluginManager = field(default_factory=hook_manager)
    _infos: list[PluginInfo] = field(default_factory=list)
    _presets: dict[str, ModelPreset] = field(default_factory=dict)
    _providers: dict[str, NodeProvider] = field(default_factory=dict)
    _sources: dict[str, AdapterSource] = field(default_factory=dict)
    _origins: dict[tuple[str, str], PluginInfo] = field(default_factory=dict)
    _generic: dict[str, ModelPreset] = field(default_factory=dict)

    @classmethod
    def discover(cls, settings: Settings) -> "PluginRegistry":
        """Returns a registry of all plugins that the settings allow; failures are in `plugins`.

        Raises:
            ConfigError: The folder of plugin files cannot be read.
        """
        registry = cls(settings)
        for candidate in find_candidates(settings.plugins_dir):
            registry._load(candidate)
        return registry

    def _load(self, candidate: Candidate) -> None:
        info = PluginInfo(candidate.name, candidate.distribution, candidate.module, "failed")
        if not candidate.distribution:
            info = replace(info, file=candidate.file())
        if reason := self._refusal(candidate.name):
            self._infos.append(replace(info, state="skipped", error=reason))
            return
        before, started = ProcessState.now(), time.perf_counter()
        try:
            self._refuse_name(info)
            candidate.check_api()
            # Standard output is for programs to read: what a plugin prints there would spoil `-o json`.
            with redirect_stdout(sys.stderr):
                plugin = candidate.load()
                info = replace(info, file=candidate.file(), import_seconds=time.perf_counter() - started)
                remarks = candidate.check_honesty(plugin)
        except BaseException as error:  # a plugin may also call exit() while it is imported
            self._fail(replace(info, remarks=before.changes()), error)
            return
        with redirect_stdout(sys.stderr):
            self._register(plugin, replace(info, remarks=remarks), before)

    def register(self, plugin: object, name: str, distribution: str = "") -> None:
        """Registers a plugin object directly, as a test or an embedding program does.

        Raises:
            PluginError: It is broken; nothing of it is registered.
        """
        info = PluginInfo(name, distribution, getattr(plugin, "__name__", type(plugin).__name__), "failed")
        if error := self._register(plugin, info):
            raise error

    def _register(self, plugin: object, info: PluginInfo, before: ProcessState | None = None) -> PluginError | None:
        try:
            self._refuse_name(info)
            records = collect(plugin, info.name, self.settings)
            self._refuse_duplicates(records, info)
            self._manager.register(plugin, info.name)
        except BaseException as error:
            return self._fail(_with_changes(info, before), error)
        info = replace(
            _with_changes(info, before),
            state="loaded",
            presets=tuple(preset.name for preset in records.presets),
            providers=tuple(provider.name for provider in records.providers),
            sources=tuple(source.name for source in records.sources),
        )
        self._infos.append(info)
        self._origins.update(dict.fromkeys(records.names(), info))
        self._presets.update({preset.name: preset for preset in records.presets})
        self._providers.update({provider.name: provider for provider in records.providers})
        self._sources.update({scheme: source for source in records.sources for scheme in source.schemes})
        return None

    def _refuse_name(self, info: PluginInfo) -> None:
        first = next((other for other in self._infos if other.name == info.name), None)
        if first is not None:
            raise PluginConflictError(f"the plugin name is taken: {first} came before {info}; uninstall one of them")

    def _refuse_duplicates(self, records: Records, info: PluginInfo) -> None:
        seen: set[tuple[str, str]] = set()
        for kind, name in records.names():
            if (kind, name) in seen:
                raise PluginConflictError(f"brings the {kind} '{name}' twice")
            seen.add((kind, name))
            if first := self._origins.get((kind, name)):
                raise PluginConflictError(
                    f"the {kind} '{name}' is provided by {first} and by {info}: uninstall one, or deny it with "
                    "KAITO_PLUGINS_DENY"
                )

    def _refusal(self, name: str) -> str:
        if name in self.settings.plugins_deny:
            return "it is on the deny list (KAITO_PLUGINS_DENY)"
        if self.settings.plugins_allow and name not in (*self.settings.plugins_allow, _BUILTIN):
            return "it is not on the allow list (KAITO_PLUGINS_ALLOW)"
        return ""

    def _fail(self, info: PluginInfo, error: BaseException) -> PluginError:
        if isinstance(error, KeyboardInterrupt):
            raise error
        kind: type[PluginError] = PluginLoadError
        if isinstance(error, PluginError):
            kind = type(error)
        elif isinstance(error, pluggy.PluginValidationError):
            kind = UnknownHookError
        text = _words(error)
        failure = kind(text, plugin=info.name, distribution=info.distribution)
        failure.__cause__ = error
        lines = traceback.format_exception(error, limit=-20)  # the innermost frames: a recursion has a thousand
        self._infos.append(replace(info, state="failed", error=text, traceback="".join(lines)))
        return failure

    @property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """All plugins that were found, in the order of loading."""
        return tuple(self._infos)

    @property
    def failures(self) -> tuple[PluginInfo, ...]:
        """The plugins that are left out because they are broken."""
        return tuple(info for info in self._infos if info.state == "failed")

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
        """Returns the plugin that brings a record.

        Kinds: "preset", "node provider", "adapter source", "adapter scheme".
        """
        return self._origins[kind, name].name

    def preset(self, name: str) -> ModelPreset:
        """Returns a preset: a plugin's, or for "org/model" one made from its configuration on this machine.

        Raises:
            UnknownPresetError: No plugin brings it.
            InvalidWorkspaceError: Models of this form are not allowed, or nothing can be made of the configuration.
        """
        if "/" in name:
            return self._generic.get(name) or local_preset(name, self.settings)
        if name not in self._presets:
            raise UnknownPresetError(name, self._presets)
        return self._presets[name]

    def adopt(self, name: str, folder: Path) -> None:
        """Makes the model of a folder on this machine known, where `name` is "org/model" and the folder has its files.

        Raises:
            InvalidWorkspaceError: The settings do not allow it, or no preset can be made of it.
        """
        if "/" in name and (folder / "config.json").is_file():
            self._generic[name] = folder_preset(name, folder, self.settings)

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
        return next((sku for _, sku in self.machines() if sku.name.lower() == wanted), None)

    def machines(self) -> Iterator[tuple[str, GpuSku]]:
        """Yields the machine types that node providers know, each with the provider's name.

        A provider that fails is logged and passed over.
        """
        for name, provider in sorted(self._providers.items()):
            try:
                skus = checked(f"skus() of '{name}'", provider.skus(), GpuSku)
            except (Exception, SystemExit):
                _log.exception("node provider '%s' of plugin '%s' failed", name, self.origin("node provider", name))
                continue
            yield from ((name, sku) for sku in skus)

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
        for plugin, chosen in self._answers("kaito_select_node_provider", workspace=workspace, candidates=candidates):
            for candidate in candidates:
                if candidate is chosen:
                    return candidate
            _log.error("plugin '%s': kaito_select_node_provider must return a candidate, got %r", plugin, chosen)
        raise UnknownProviderError("", self._providers, "resource.instanceType")

    def objections(self, workspace: Workspace, preset: ModelPreset | None) -> list[FieldError]:
        """Returns what plugins object to; one whose hook fails is logged and does not count."""
        hook = "kaito_validate_workspace"
        errors: list[FieldError] = []
        for plugin, answer in self._answers(hook, workspace=workspace, preset=preset):
            try:
                errors.extend(checked(hook, answer, FieldError))
            except (Exception, SystemExit):
                _log.exception("plugin '%s': %s failed", plugin, hook)
        return errors

    def reconciled(self, workspace: Workspace, outcome: str) -> None:
        """Tells the observers how a pass ended."""
        for _ in self._answers("kaito_reconciled", workspace=workspace, outcome=outcome):
            pass  # what observers return means nothing

    def _answers(self, hook: str, **arguments: object) -> Iterator[tuple[str, object]]:
        """Yields each plugin's answer other than None, in pluggy's calling order; a plugin that fails is logged.

        pluggy itself would let the first failure keep all other plugins from being asked.
        """
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            try:
                answer = implementation.function(*(arguments[name] for name in implementation.argnames))
            except (Exception, SystemExit):
                _log.exception("plugin '%s': %s failed", implementation.plugin_name, hook)
                continue
            if answer is not None:
                yield implementation.plugin_name, answer
