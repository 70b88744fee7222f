"""The provider: lists claims, applies what `claims` plans, and lets `progress` say how things stand."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from kaito_core.api.cluster import NODES, Cluster, KubeObject, ResourceType
from kaito_core.api.nodes import GpuSku, NodeRequest, NodeState
from kaito_core.errors import ClusterError, ProviderError
from kaito_karpenter.claims import NODECLAIMS, is_ready, owner_labels, plan_claims
from kaito_karpenter.cloud import KarpenterCloud
from kaito_karpenter.progress import capacity_words, claims_state

__all__ = ["KarpenterProvider"]

EVENTS = ResourceType("", "v1", "events", "Event")
#: Events about objects without a namespace are kept here.
_EVENT_NAMESPACE = "default"


class KarpenterProvider:
    """Makes nodes through Karpenter's NodeClaims, and gives them back."""

    def __init__(self, cloud: KarpenterCloud) -> None:
        """Does no I/O; `cloud` is whose machines it makes."""
        self._cloud = cloud

    @property
    def name(self) -> str:
        """What a Workspace's annotation `kaito.sh/node-provider` calls it."""
        return self._cloud.name

    @property
    def creates_nodes(self) -> bool:
        """It does."""
        return True

    @property
    def watches(self) -> Sequence[ResourceType]:
        """NodeClaims, which carry the Workspace's labels."""
        return (NODECLAIMS,)

    def skus(self) -> Sequence[GpuSku]:
        """Returns the machine types of the table."""
        return self._cloud.skus

    def makes_type(self, instance_type: str) -> bool:
        """Returns whether a machine type is in the table, or named like those of the cloud."""
        return self._cloud.makes(instance_type)

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        """Creates what is missing, all at once, and gives back what is surplus once the rest is ready.

        What was asked for by mistake, as with a machine type that has been put right since, goes at once.

        Raises:
            InvalidWorkspaceError: No machine can be asked for as the Workspace is written.
            ProviderError: The cluster has no NodeClaims.
            ClusterError: Anything else that the API refuses.
        """
        existing = await cluster.list(NODECLAIMS, labels=owner_labels(request))
        plan = plan_claims(request, existing, self._cloud)
        await asyncio.gather(*(_delete(cluster, claim) for claim in plan.mistaken))
        refused = await self._refusal(cluster, plan.create)
        made = [] if refused else await asyncio.gather(*(self._apply(cluster, manifest) for manifest in plan.create))
        claims = (*plan.keep, *made)  # one whose labels were taken off by hand has been there, with its node
        names = [claim["status"]["nodeName"] for claim in claims if is_ready(claim)] if request.gpus else []
        nodes = await asyncio.gather(*(cluster.get(NODES, name) for name in names))
        state = claims_state(request, claims, dict(zip(names, nodes, strict=True)), self._cloud, refused)
        if not state.reason:
            await asyncio.gather(*(_delete(cluster, claim) for claim in plan.surplus))
        return state

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        """Deletes the Workspace's claims; True once a look finds none. A cluster without NodeClaims has none."""
        claims = await cluster.list(NODECLAIMS, labels=owner_labels(request))
        await asyncio.gather(
            *(_delete(cluster, claim) for claim in claims if not claim["metadata"].get("deletionTimestamp"))
        )
        return not claims

    async def _refusal(self, cluster: Cluster, missing: Sequence[KubeObject]) -> str:
        """Returns why the cloud refused the machines that are missing, "" if it did not in the last minutes."""
        if not missing:
            return ""
        try:
            events = await cluster.list(EVENTS, _EVENT_NAMESPACE)
        except ClusterError:
            return ""  # without leave to read events the reason stays unknown, which stops nothing
        return capacity_words(events, (claim["metadata"]["name"] for claim in missing), datetime.now(UTC))

    async def _apply(self, cluster: Cluster, manifest: KubeObject) -> KubeObject:
        try:
            return await cluster.apply(manifest)
        except ClusterError as error:
            if error.status == 404:
                raise ProviderError(
                    f"the cluster has no NodeClaims (karpenter.sh/v1): install Karpenter for {self._cloud.title}, or "
                    "name prepared nodes with the annotation kaito.sh/node-provider: gpu_onprem"
                ) from error
            raise


async def _delete(cluster: Cluster, claim: KubeObject) -> None:
    metadata = claim["metadata"]
    await cluster.delete(NODECLAIMS, metadata["name"], uid=metadata.get("uid", ""))
