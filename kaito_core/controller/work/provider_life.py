"""The life of node providers that have one: they are started before the first pass, and closed after the last."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kaito_core.api import Cluster
from kaito_core.api.nodes import Closes, NodeProvider, Starts
from kaito_core.plugins import PluginRegistry
from kaito_core.plugins.calls import plugin_call

__all__ = ["running_providers"]

log = logging.getLogger(__name__)

_START_SECONDS = 30.0
_CLOSE_SECONDS = 5.0


@asynccontextmanager
async def running_providers(registry: PluginRegistry, cluster: Cluster) -> AsyncIterator[None]:
    """Has all providers started, all at the same time, and closes them in the end.

    One that fails, or takes too long, is logged with its plugin, and is asked for nodes all the same: what it raises
    then is in the status of the Workspaces that want it.
    """
    providers = list(registry.providers.values())
    await asyncio.gather(*(_start(registry, provider, cluster) for provider in providers))
    try:
        yield
    finally:
        await asyncio.gather(*(_close(registry, provider) for provider in providers))


async def _start(registry: PluginRegistry, provider: NodeProvider, cluster: Cluster) -> None:
    if isinstance(provider, Starts):
        async with _calling(registry, provider, "start", _START_SECONDS):
            await provider.start(cluster)


async def _close(registry: PluginRegistry, provider: NodeProvider) -> None:
    if isinstance(provider, Closes):
        async with _calling(registry, provider, "close", _CLOSE_SECONDS):
            await provider.close()


@asynccontextmanager
async def _calling(
    registry: PluginRegistry, provider: NodeProvider, method: str, seconds: float
) -> AsyncIterator[None]:
    """Encloses a call of a provider; what it raises is logged."""
    plugin = registry.origin("node provider", provider.name)
    function = f"{method} of node provider '{provider.name}'"
    try:
        async with asyncio.timeout(seconds):
            with plugin_call(plugin, function, blocking=False):
                yield
    except TimeoutError:
        log.error("plugin '%s': %s did not return within %g seconds", plugin, function, seconds)
    except Exception:
        log.exception("plugin '%s': %s failed", plugin, function)
