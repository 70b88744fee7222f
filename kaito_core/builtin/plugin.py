"""The hooks of the built-in plugin: its adapter sources, and the node provider of a Workspace that names none."""

from collections.abc import Sequence

from kaito_core import hookimpl
from kaito_core.api import AdapterSource, NodeProvider, Workspace
from kaito_core.builtin.file import FileSource
from kaito_core.builtin.hf import HfSource
from kaito_core.builtin.http import HttpSource
from kaito_core.builtin.image import ImageSource
from kaito_core.builtin.volume import VolumeSource

__all__ = ["kaito_adapter_sources", "kaito_select_node_provider"]


@hookimpl
def kaito_adapter_sources() -> Sequence[AdapterSource]:
    """Returns the sources of the schemes image, volume, https, http, hf and file."""
    return (ImageSource(), VolumeSource(), HttpSource(), HfSource(), FileSource())


@hookimpl(trylast=True)
def kaito_select_node_provider(workspace: Workspace, candidates: Sequence[NodeProvider]) -> NodeProvider | None:
    """Returns the first provider that knows the instance type, else the first that creates no nodes, else None."""
    wanted = workspace.resource.instance_type.casefold()
    for provider in candidates:
        if wanted and any(sku.name.casefold() == wanted for sku in provider.skus()):
            return provider
    return next((provider for provider in candidates if not provider.creates_nodes), None)
