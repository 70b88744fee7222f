"""A plugin registry with chosen records, and an example preset, for tests of plugins and of planning."""

from collections.abc import Iterable, Sequence
from typing import Any

from kaito_core import hookimpl
from kaito_core.api import AdapterSource, ModelPreset, NodeProvider, Weights
from kaito_core.builtin import plugin as builtin
from kaito_core.plugins import PluginRegistry
from kaito_core.settings import Settings

__all__ = ["example_preset", "registry_with"]


class _Given:
    """A plugin with the records that it is given."""

    def __init__(
        self, presets: Sequence[ModelPreset], providers: Sequence[NodeProvider], sources: Sequence[AdapterSource]
    ) -> None:
        self._presets, self._providers, self._sources = presets, providers, sources

    @hookimpl
    def kaito_model_presets(self) -> Sequence[ModelPreset]:
        return self._presets

    @hookimpl
    def kaito_node_providers(self) -> Sequence[NodeProvider]:
        return self._providers

    @hookimpl
    def kaito_adapter_sources(self) -> Sequence[AdapterSource]:
        return self._sources


def registry_with(
    presets: Iterable[ModelPreset] = (),
    providers: Iterable[NodeProvider] = (),
    sources: Iterable[AdapterSource] = (),
    *,
    settings: Settings | None = None,
) -> PluginRegistry:
    """Returns a registry of the built-in plugin and of one named "given" with these records.

    Installed plugins are not loaded, so that tests give the same result everywhere.

    Example:
        registry = registry_with([example_preset(name="tiny")], providers=[MyProvider()])

    Raises:
        PluginError: The registry refuses the records, as it would those of an installed plugin.
    """
    registry = PluginRegistry(settings or Settings())
    registry.register(builtin, "builtin")
    registry.register(_Given(tuple(presets), tuple(providers), tuple(sources)), "given")
    return registry


def example_preset(**changes: Any) -> ModelPreset:
    """Returns a preset like falcon-7b: one GPU with 14 GiB of memory, not distributed.

    Args:
        **changes: Fields with other values.

    Example:
        on_cpu = example_preset(name="tiny", gpus=0, gpu_memory_gib=0)

    Raises:
        pydantic.ValidationError: A field has an invalid value.
    """
    fields: dict[str, Any] = {
        "name": "example-7b",
        "family": "example",
        "architecture": "ExampleForCausalLM",
        "weights": Weights(repository="example/example-7b", revision="0123456789abcdef", size_gib=13.5),
        "gpus": 1,
        "gpu_memory_gib": 14.0,
        "memory_gib": 16.0,
        "disk_gib": 50.0,
        "context_length": 2048,
        "kv_bytes_per_token": 8192,
        "license": "Apache-2.0",
    }
    return ModelPreset(**{**fields, **changes})
