"""The hooks of the built-in plugin: adapter sources, a node provider, and which provider serves where none is named."""

import logging
from collections.abc import Callable, Collection, Sequence

from kaito_core import hookimpl
from kaito_core.api import AdapterSource, MakesTypes, NodeProvider, Workspace
from kaito_core.api.workspace.model import HOLDER_ANNOTATION
from kaito_core.builtin.file import FileSource
from kaito_core.builtin.hf import HfSource
from kaito_core.builtin.http import HttpSource
from kaito_core.builtin.image import ImageSource
from kaito_core.builtin.scheduler import SchedulerProvider
from kaito_core.builtin.volume import VolumeSource
from kaito_core.settings import Settings

__all__ = ["kaito_adapter_sources", "kaito_node_providers", "kaito_select_node_provider"]

_log = logging.getLogger(__name__)


@hookimpl
def kaito_adapter_sources(settings: Settings) -> Sequence[AdapterSource]:
    """Returns the sources of the schemes image, volume, https, http, hf and file."""
    return (ImageSource(), VolumeSource(), HttpSource(settings), HfSource(), FileSource())


@hookimpl
def kaito_node_providers(settings: Settings) -> Sequence[NodeProvider]:
    """Returns the provider that leaves nodes to the scheduler."""
    return (SchedulerProvider(by_default=settings.autoscaled_nodes),)


@hookimpl(trylast=True)
def kaito_select_node_provider(
    workspace: Workspace, candidates: Sequence[NodeProvider], node_types: Collection[str]
) -> NodeProvider | None:
    """Returns the provider that makes the instance type or has nodes of it; without a type, one that makes none."""
    instance_type = workspace.resource.instance_type
    wanted = instance_type.casefold()
    autoscaled = next((provider for provider in candidates if isinstance(provider, SchedulerProvider)), None)
    prepared = next((each for each in candidates if not each.creates_nodes and each is not autoscaled), None)
    if not wanted:
        return autoscaled or prepared
    if listing := next((provider for provider in candidates if _has(provider, instance_type, _lists)), None):
        return listing
    maker = next((provider for provider in candidates if _has(provider, instance_type, _makes)), None)
    # Nodes that were made for the Workspace are not given up for prepared ones that appear later.
    if maker is not None and maker.name == workspace.metadata.annotations.get(HOLDER_ANNOTATION):
        return maker
    # Machines on premises have no such label, unless somebody gives it to them.
    unlabelled = "" in node_types and not any(provider.creates_nodes for provider in candidates)
    if prepared is not None and autoscaled is None and (wanted in node_types or unlabelled):
        return prepared
    return maker or autoscaled


def _lists(provider: NodeProvider, instance_type: str) -> bool:
    return any(sku.name.casefold() == instance_type.casefold() for sku in provider.skus())


def _makes(provider: NodeProvider, instance_type: str) -> bool:
    return isinstance(provider, MakesTypes) and provider.makes_type(instance_type)


def _has(provider: NodeProvider, instance_type: str, asked: Callable[[NodeProvider, str], bool]) -> bool:
    """Returns a provider's answer; one that fails has nothing, and the others are asked."""
    try:
        return asked(provider, instance_type)
    except (Exception, SystemExit) as error:
        _log.exception("node provider '%s' failed: %s", provider.name, error)
        return False
