"""Keeps a Workspace from going before the machines that were made for it, and hands machines over between providers.

Only Workspaces of providers that create nodes get our finalizer. Nobody else's is ever touched: our own entry of the
list is applied, and taken out, as the field manager that owns it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from kaito_core.api import KubeObject, NodeProvider, NodeRequest, NodeState
from kaito_core.controller.api_calls import identity
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.errors import NotReadyError, ProviderError
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.transition import Event

__all__ = ["HOLDER_ANNOTATION", "NODES_FINALIZER", "NodeKeeper", "holder_of", "is_held"]

NODES_FINALIZER = "kaito.sh/nodes"
#: Names the provider whose nodes the finalizer stands for: it may be another one by the time they are given back.
HOLDER_ANNOTATION = "kaito.sh/nodes-provider"

_PROVIDER_SECONDS = 60.0
_RELEASE_RETRY_SECONDS = 10.0


def is_held(document: KubeObject) -> bool:
    """Returns whether our finalizer is on a Workspace."""
    return NODES_FINALIZER in (document["metadata"].get("finalizers") or ())


def holder_of(document: KubeObject) -> str:
    """Returns the provider that has made nodes for a Workspace, "" where none has."""
    return str((document["metadata"].get("annotations") or {}).get(HOLDER_ANNOTATION, ""))


@dataclass(frozen=True, slots=True)
class NodeKeeper:
    """Asks providers for nodes and gives them back; `on_error` is told the provider and what it raised."""

    registry: PluginRegistry
    cluster: KubernetesCluster
    on_error: Callable[[str, Exception], None]

    async def ensure(self, document: KubeObject, provider: NodeProvider | None, request: NodeRequest) -> NodeState:
        """Returns how the nodes of a Workspace stand; without a provider any node will do.

        Raises:
            KaitoError: What the provider raises; `NotReadyError` while another one still gives its nodes back.
        """
        wanted = provider.name if provider is not None and provider.creates_nodes else ""
        if is_held(document) and (holder := holder_of(document)) != wanted:
            if holder not in self.registry.providers:  # perhaps its plugin is broken today only: nothing is let go yet
                message = f"node provider '{holder}', which has made nodes for this Workspace, is not installed"
                raise ProviderError(f"{message}; install it again, or delete the Workspace, which leaves them")
            await self._give_back(holder, request)
            document = await self.let_go(document)
        if wanted and not is_held(document):
            await self._hold(document, wanted)  # before anything is made: nothing may outlive the Workspace unnoticed
        if provider is None:
            return NodeState(ready=())
        async with self._patience(provider):
            return await provider.ensure(request, self.cluster)

    async def release(self, document: KubeObject) -> Event | None:
        """Gives back what was made for a Workspace that is being deleted; returns what to tell about what cannot be.

        Raises:
            NotReadyError: Something is left; it is asked for again.
            BackendError: The provider failed.
        """
        metadata = document["metadata"]
        holder = holder_of(document)
        await self._give_back(holder, NodeRequest(metadata["name"], metadata["namespace"], metadata["uid"], count=0))
        if holder in self.registry.providers:
            return None
        message = f"node provider '{holder}' is not installed: nodes that it made may be left; delete them by hand"
        return Event("Warning", "NodesNotReleased", message)

    async def let_go(self, document: KubeObject) -> KubeObject:
        """Takes our finalizer off."""
        return await self._hold(document, "")

    async def _give_back(self, holder: str, request: NodeRequest) -> None:
        provider = self.registry.providers.get(holder)
        if provider is None:
            return
        async with self._patience(provider):
            released = await provider.release(request, self.cluster)
        if not released:
            message = f"waiting until node provider '{holder}' has given its nodes back"
            raise NotReadyError("ReleasingNodes", message, _RELEASE_RETRY_SECONDS)

    async def _hold(self, document: KubeObject, provider: str) -> KubeObject:
        manifest = identity(document)
        if provider:
            manifest["metadata"] |= {"finalizers": [NODES_FINALIZER], "annotations": {HOLDER_ANNOTATION: provider}}
        return await self.cluster.apply(manifest)

    @asynccontextmanager
    async def _patience(self, provider: NodeProvider) -> AsyncIterator[None]:
        """Ends a provider's call that takes too long: it is asked to say how things stand, not to wait."""
        try:
            async with asyncio.timeout(_PROVIDER_SECONDS):
                yield
        except TimeoutError as error:
            self.on_error(provider.name, error)
            message = f"node provider '{provider.name}' did not answer within {_PROVIDER_SECONDS:g} seconds"
            raise ProviderError(message) from error
        except NotReadyError:
            raise  # a normal wait
        except Exception as error:
            self.on_error(provider.name, error)
            raise
