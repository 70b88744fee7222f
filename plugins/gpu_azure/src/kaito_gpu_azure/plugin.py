"""The provider of Azure nodes, with the options that the settings have for it."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kaito_core import hookimpl
from kaito_core.api import ModelPreset, NodeProvider, Workspace
from kaito_core.errors import FieldError
from kaito_gpu_azure.provider import AZURE, AzureProvider
from kaito_karpenter.checks import workspace_faults

if TYPE_CHECKING:
    from kaito_core.settings import Settings

__all__ = ["kaito_node_providers", "kaito_validate_workspace"]


@hookimpl
def kaito_node_providers(settings: "Settings") -> Sequence[NodeProvider]:
    """Returns the provider. Its options are the settings KAITO_PLUGIN_GPU_AZURE__<OPTION>; see the README.

    Raises:
        ConfigError: An option is unknown, or its value cannot be used.
    """
    return (AzureProvider(AZURE.configured(settings.plugins.get("gpu_azure", {}))),)


@hookimpl
def kaito_validate_workspace(workspace: Workspace, preset: ModelPreset | None) -> Iterable[FieldError]:
    """Returns what is wrong with the machine type and the annotations of a Workspace of this provider."""
    return workspace_faults(workspace, preset, AZURE)
