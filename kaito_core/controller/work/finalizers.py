"""Keeps a Workspace until the nodes made for it are released, and hands nodes over from one provider to another.

Only Workspaces whose provider creates nodes get our finalizer. Other finalizers are not touched: server-side apply adds
and removes our entry alone, as the field manager that owns it. The one exception is that of KAITO's own operator, which
is removed from a Workspace that is being deleted when that operator is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kaito_core.api import KubeObject, NodeProvider, NodeRequest, NodeState
from kaito_core.api.workspace.model import HOLDER_ANNOTATION, WORKSPACES
from kaito_core.controller.api_calls import identity
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.errors import NotReadyError, ProviderError
from kaito_core.plugins import PluginRegistry
from kaito_core.plugins.calls import plugin_call
from kaito_core.reconcile.takeover import UPSTREAM_FINALIZER
from kaito_core.reconcile.transition import Event

__all__ = ["NODES_FINALIZER", "NodeKeeper", "holder_of", "is_held"]

NODES_FINALIZER = "kaito.sh/nodes"

_PROVIDER_SECONDS = 60.0
_RELEASE_RETRY_SECONDS = 10.0


def is_held(document: KubeObject) -> bool:
    """Returns whether our finalizer is on a Workspace."""
    return NODES_FINALIZER in (document["metadata"].get("finalizers") or ())


def holder_of(document: KubeObject) -> str:
    """Returns the name of the provider that made nodes for a Workspace, "" for none."""
    return str((document["metadata"].get("annotations") or {}).get(HOLDER_ANNOTATION, ""))


@dataclass(frozen=True, slots=True)
class NodeKeeper:
    """Asks node providers for nodes and has them released.

    Attributes:
        registry: The plugins.
        cluster: Passed to the providers.
        on_error: Called with the provider's name and the error of a call that failed.
    """

    registry: PluginRegistry
    cluster: KubernetesCluster
    on_error: Callable[[str, Exception], None]

    async def ensure(self, document: KubeObject, provider: NodeProvider | None, request: NodeRequest) -> NodeState:
        """Returns the state of a Workspace's nodes; without a provider any node will do.

        Raises:
            NotReadyError: Another provider is still releasing the nodes it made for this Workspace.
            ProviderError: The provider took too long, or the one that made the nodes is not installed.
            Exception: What the provider raises.
        """
        wanted = provider.name if provider is not None and provider.creates_nodes else ""
        if is_held(document) and (holder := holder_of(document)) != wanted:
            if holder not in self.registry.providers:  # its plugin may be broken for a moment only
                message = f"node provider '{holder}', which made nodes for this Workspace, is not installed"
                raise ProviderError(f"{message}; install it again, or delete the Workspace and the nodes by hand")
            await self._have_released(holder, request)
            document = await self.let_go(document)
        if wanted and not is_held(document):
            await self._apply_finalizer(document, wanted)  # before any node is made, so that none is left behind
        if provider is None:
            return NodeState(ready=())
        async with self._calling(provider, "ensure"):
            return await provider.ensure(request, self.cluster)

    async def release(self, document: KubeObject) -> Event | None:
        """Releases the nodes of a Workspace that is being deleted; returns an event where nodes may be left behind.

        Raises:
            NotReadyError: The provider is still releasing nodes.
            ProviderError: The provider took too long.
            Exception: What the provider raises.
        """
        metadata = document["metadata"]
        holder = holder_of(document)
        await self._have_released(
            holder, NodeRequest(metadata["name"], metadata["namespace"], metadata["uid"], count=0)
        )
        if holder in self.registry.providers:
            return None
        message = f"node provider '{holder}' is not installed, so the nodes it made may remain; delete them by hand"
        return Event("Warning", "NodesNotReleased", message)

    async def release_taken_over(self, document: KubeObject) -> None:
        """Releases what KAITO's own operator made for a Workspace that is being deleted, and removes its finalizer.

        Nobody else would: the Workspace would be there for ever.

        Raises:
            NotReadyError: A provider is still releasing nodes.
            ProviderError: A provider took too long.
            Exception: What a provider raises.
        """
        metadata = document["metadata"]
        request = NodeRequest(metadata["name"], metadata["namespace"], metadata["uid"], count=0)
        for name, provider in sorted(self.registry.providers.items()):
            if provider.creates_nodes:  # the claims have the same labels, whoever made them
                await self._have_released(name, request)
        await self.cluster.remove_finalizer(WORKSPACES, document, UPSTREAM_FINALIZER)

    async def let_go(self, document: KubeObject) -> KubeObject:
        """Removes our finalizer and returns the Workspace."""
        return await self._apply_finalizer(document, "")

    async def _have_released(self, holder: str, request: NodeRequest) -> None:
        provider = self.registry.providers.get(holder)
        if provider is None:
            return
        async with self._calling(provider, "release"):
            released = await provider.release(request, self.cluster)
        if not released:
            message = f"waiting for node provider '{holder}' to release its nodes"
            raise NotReadyError("ReleasingNodes", message, _RELEASE_RETRY_SECONDS)

    async def _apply_finalizer(self, document: KubeObject, provider: str) -> KubeObject:
        manifest = identity(document)
        if provider:
            manifest["metadata"] |= {"finalizers": [NODES_FINALIZER], "annotations": {HOLDER_ANNOTATION: provider}}
        return await self.cluster.apply(manifest)

    @asynccontextmanager
    async def _calling(self, provider: NodeProvider, method: str) -> AsyncIterator[None]:
        """Encloses a call of a provider, which is to report how things stand and must not wait for them to change."""
        plugin = self.registry.origin("node provider", provider.name)
        try:
            async with asyncio.timeout(_PROVIDER_SECONDS) as limit:
                with plugin_call(plugin, f"{method} of node provider '{provider.name}'", blocking=False):
                    yield
        except NotReadyError:
            raise  # a normal wait
        except Exception as error:
            self.on_error(provider.name, error)
            if not limit.expired():
                raise
            message = (
                f"node provider '{provider.name}' did not return from {method} within {_PROVIDER_SECONDS:g} seconds"
            )
            raise ProviderError(message) from error
