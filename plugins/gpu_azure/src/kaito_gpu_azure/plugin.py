"""Registers the provider of Azure nodes, with the node class that the settings name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kaito_core import hookimpl
from kaito_core.api import NodeProvider
from kaito_core.errors import ConfigError
from kaito_gpu_azure.nodeclaims import NodeClass
from kaito_gpu_azure.provider import AzureProvider

if TYPE_CHECKING:
    from kaito_core.settings import Settings

__all__ = ["kaito_node_providers"]

#: KAITO_PLUGIN_GPU_AZURE__NODE_CLASS=name and so on.
_OPTIONS = {"node_class": "name", "node_class_kind": "kind", "node_class_group": "group"}


@hookimpl
def kaito_node_providers(settings: "Settings") -> Sequence[NodeProvider]:
    """Returns the one provider.

    Raises:
        ConfigError: The settings hold an option that this plugin does not have.
    """
    options = settings.plugins.get("gpu_azure", {})
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise ConfigError(f"gpu_azure has no option {', '.join(unknown)}; known: {', '.join(sorted(_OPTIONS))}")
    return (AzureProvider(NodeClass(**{_OPTIONS[option]: value for option, value in options.items()})),)
