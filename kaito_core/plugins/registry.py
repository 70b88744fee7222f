"""PluginRegistry: the records of the operator's plugins by name, and what the plugins answer when they are asked."""

import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from kaito_core import hookspecs
from kaito_core.api import AdapterSource, GpuSku, ModelPreset, NodeProvider, PodChange, ResourceType, Weights, Workspace
from kaito_core.api.frozen import frozen
from kaito_core.api.workspace.model import PROVIDER_ANNOTATION
from kaito_core.builtin.scheduler import SchedulerProvider
from kaito_core.errors import (
    FieldError,
    InvalidWorkspaceError,
    PluginError,
    PluginFailedError,
    UnknownInstanceTypeError,
    UnknownPresetError,
    UnknownProviderError,
    UnknownSourceError,
    WorkspaceError,
)
from kaito_core.plugins.calls import plugin_call
from kaito_core.plugins.candidates import find_candidates
from kaito_core.plugins.hub_names import nearest_repository, preset_of_repository
from kaito_core.plugins.info import PluginInfo
from kaito_core.plugins.loader import PluginLoader, checked
from kaito_core.plugins.local_presets import folder_preset, local_preset
from kaito_core.plugins.preset_errors import preset_faults
from kaito_core.plugins.project import HookProject
from kaito_core.plugins.records import Records, collect
from kaito_core.settings import Settings

__all__ = ["OPERATOR", "PluginRegistry"]

OPERATOR = HookProject(hookspecs.PROJECT, hookspecs, hookspecs.API_VERSION, "kaito_core.hookimpl")

_log = logging.getLogger(__name__)


class PluginRegistry:
    """Working plugins and their records.

    Make one with `discover`, or an empty one and `register` for tests.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._loader: PluginLoader[Records] = PluginLoader(
            OPERATOR,
            lambda hooks: collect(hooks, self.settings),
            words=_preset_words,
            allow=self.settings.plugins_allow,
            deny=self.settings.plugins_deny,
        )
        self._presets: dict[str, ModelPreset] = {}
        self._providers: dict[str, NodeProvider] = {}
        self._sources: dict[str, AdapterSource] = {}
        self._generic: dict[str, ModelPreset] = {}

    @classmethod
    def discover(cls, settings: Settings) -> "PluginRegistry":
        """Returns a registry of all plugins that the settings allow; failures are in `plugins`.

        Raises:
            ConfigError: The folder of plugin files cannot be read.
        """
        registry = cls(settings)
        for candidate in find_candidates(OPERATOR, settings.plugins_dir):
            if records := registry._loader.load(candidate):
                registry._add(records)
        return registry

    def register(self, plugin: object, name: str, distribution: str = "") -> None:
        """Registers a plugin object directly, as a test or an embedding program does.

        Raises:
            PluginError: It is broken; nothing of it is registered.
        """
        self._add(self._loader.register(plugin, name, distribution))

    def _add(self, records: Records) -> None:
        self._presets.update({preset.name: preset for preset in records.presets})
        self._providers.update({provider.name: provider for provider in records.providers})
        self._sources.update(records.by_scheme)

    @property
    def plugins(self) -> tuple[PluginInfo, ...]:
        """All plugins that were found, in the order of loading."""
        return tuple(self._loader.infos)

    @property
    def failures(self) -> tuple[PluginInfo, ...]:
        """The plugins that are left out because they are broken."""
        return tuple(info for info in self._loader.infos if info.state == "failed")

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
        return self._loader.origin(kind, name)

    def preset(self, name: str) -> ModelPreset:
        """Returns a preset: a plugin's, by its name or by the hub's name of its weights, in any case.

        For another "org/model" it is one made from the model's configuration on this machine.

        Raises:
            UnknownPresetError: No plugin brings it.
            InvalidWorkspaceError: Several presets serve these weights, models of this form are not allowed, or nothing
                can be made of the configuration.
        """
        if known := self._presets.get(name) or self._generic.get(name):
            return known
        installed = self._presets.values()
        try:
            if found := preset_of_repository(name, installed):
                return found
        except InvalidWorkspaceError:
            if not (self.settings.allow_generic_models and "@" in name):  # another revision may be on this machine
                raise
        if "/" in name:
            return local_preset(name, self.settings, nearest_repository(name, installed))
        raise UnknownPresetError(name, self._presets)

    def adopt(self, name: str, folder: Path) -> None:
        """Makes a preset of the model in a folder on this machine, if `name` is "org/model" and its files are there.

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
            raise UnknownSourceError(field_path, scheme, self._sources, self.settings.source_of(scheme))
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
            plugin, function = self.origin("node provider", name), f"skus of node provider '{name}'"
            try:
                with plugin_call(plugin, function):
                    skus = checked(function, provider.skus(), GpuSku)
            except Exception:
                _log.exception("plugin '%s': %s failed", plugin, function)
                continue
            yield from ((name, sku) for sku in skus)

    def watched_types(self) -> tuple[ResourceType, ...]:
        """Returns the resource types that node providers want to be watched; one that fails is logged and has none."""
        found: list[ResourceType] = []
        for name, provider in sorted(self._providers.items()):
            plugin, function = self.origin("node provider", name), f"watches of node provider '{name}'"
            try:
                with plugin_call(plugin, function):
                    found += checked(function, provider.watches, ResourceType)
            except Exception:
                _log.exception("plugin '%s': %s failed", plugin, function)
        return tuple(dict.fromkeys(found))

    def provider(self, workspace: Workspace, node_types: Collection[str] = ()) -> NodeProvider:
        """Returns the node provider of a Workspace: the one it names, the settings' one, or the plugins' answer.

        Args:
            workspace: The Workspace.
            node_types: Machine types of the nodes that no provider made, in lower case; "" for nodes that say none.

        Raises:
            UnknownProviderError: There is no such provider, or no plugin chooses one.
            UnknownInstanceTypeError: No plugin chooses one for the machine type that the Workspace names.
        """
        asked = workspace.metadata.annotations.get(PROVIDER_ANNOTATION, "")
        if name := asked or self.settings.node_provider:
            if name not in self._providers:
                field_path = f"metadata.annotations[{PROVIDER_ANNOTATION}]" if asked else "KAITO_NODE_PROVIDER"
                raise UnknownProviderError(name, self._providers, field_path)
            return self._providers[name]
        # The scheduler serves where it is named, or where the settings say so.
        candidates = [
            provider
            for _, provider in sorted(self._providers.items())
            if not isinstance(provider, SchedulerProvider) or provider.by_default
        ]
        known = [provider.name for provider in candidates]
        for plugin, chosen in self._loader.call_each(
            "kaito_select_node_provider", workspace=workspace, candidates=candidates, node_types=node_types
        ):
            for candidate in candidates:
                if candidate is chosen:
                    return candidate
            _log.error("plugin '%s': kaito_select_node_provider must return a candidate, got %r", plugin, chosen)
        if instance_type := workspace.resource.instance_type:
            raise UnknownInstanceTypeError(instance_type, known, (sku.name for _, sku in self.machines()))
        raise UnknownProviderError("", known, "resource.instanceType")

    def objections(self, workspace: Workspace, preset: ModelPreset | None) -> list[FieldError]:
        """Returns what plugins object to, each with its plugin; one whose hook fails is logged and does not count."""
        hook = "kaito_validate_workspace"
        errors: list[FieldError] = []
        for plugin, answer in self._loader.call_each(hook, workspace=frozen(workspace), preset=preset):
            try:
                with plugin_call(plugin, hook):  # the answer may be a generator, which runs now
                    found = checked(hook, answer, FieldError)
            except Exception:
                _log.exception("plugin '%s': %s failed", plugin, hook)
                continue
            errors += [FieldError(each.field, f"{each.message} (says plugin '{plugin}')") for each in found]
        return errors

    def pod_changes(
        self, workspace: Workspace, preset: ModelPreset, options: Mapping[str, Any]
    ) -> list[tuple[str, PodChange]]:
        """Returns the changes that plugins make to the pods of a Workspace, each with the plugin's name.

        Args:
            workspace: The Workspace.
            preset: Its preset.
            options: What its pods take along so far.

        Raises:
            InvalidWorkspaceError: A plugin objects; the message names it.
            PluginFailedError: A plugin fails, or returns something else.
        """
        hook, changes = "kaito_pod", list[tuple[str, PodChange]]()
        callers = self._loader.callers(hook)
        arguments = {"workspace": frozen(workspace), "preset": preset, "pod": frozen(options)} if callers else {}
        for plugin, caller in callers:
            try:
                with plugin_call(plugin, hook):
                    change = caller(**arguments)
            except WorkspaceError as error:
                faults = [FieldError(found.field, f"{found.message} (plugin '{plugin}')") for found in error.errors]
                raise InvalidWorkspaceError(faults) from error
            except Exception as error:
                words = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
                message = f"plugin '{plugin}': {hook} failed with {' '.join(words.split())}"
                raise PluginFailedError(f"{message}; correct it, or deny it with KAITO_PLUGINS_DENY") from error
            if isinstance(change, PodChange):
                changes.append((plugin, change))
            elif change is not None:
                kind = type(change).__name__
                raise PluginFailedError(f"plugin '{plugin}': {hook} must return a PodChange or None, got {kind}")
        return changes

    def reconciled(self, workspace: Workspace, outcome: str) -> None:
        """Calls the observers with the outcome of a pass."""
        for _ in self._loader.call_each("kaito_reconciled", workspace=workspace, outcome=outcome):
            pass  # observers return nothing


def _preset_words(error: BaseException) -> str:
    """Returns the faults of a preset in words, "" for any other error."""
    if isinstance(error, ValidationError) and error.title in (ModelPreset.__name__, Weights.__name__):
        return f"{error.title}: {'; '.join(words for _, words in preset_faults(error))}"
    return ""
