"""The provider: it lists NodeClaims, executes the plan of `claims`, and returns the state that `progress` finds."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from kaito_core.api.cluster import NODES, Cluster, KubeObject, ResourceType
from kaito_core.api.nodes import GpuSku, NodeRequest, NodeState
from kaito_core.errors import ClusterError, ProviderError
from kaito_karpenter.attempts import Attempts
from kaito_karpenter.claims import NODECLAIMS, ClaimPlan, is_ready, owner_labels, plan_claims
from kaito_karpenter.cloud import KarpenterCloud
from kaito_karpenter.progress import capacity_words, claims_state, pending

__all__ = ["KarpenterProvider", "utc_now"]

EVENTS = ResourceType("", "v1", "events", "Event")
#: Kubernetes stores events about objects without a namespace here.
_EVENT_NAMESPACE = "default"


def utc_now() -> datetime:
    """Returns the current time."""
    return datetime.now(UTC)


class KarpenterProvider:
    """Creates nodes through Karpenter's NodeClaims, and releases them."""

    def __init__(self, cloud: KarpenterCloud, now: Callable[[], datetime] = utc_now) -> None:
        """Does no I/O. `cloud` describes the machines; `now` is the clock."""
        self._cloud, self._now = cloud, now

    @property
    def name(self) -> str:
        """The name in a Workspace's annotation `kaito.sh/node-provider`."""
        return self._cloud.name

    @property
    def creates_nodes(self) -> bool:
        """True."""
        return True

    @property
    def watches(self) -> Sequence[ResourceType]:
        """NodeClaims, which have the Workspace's labels."""
        return (NODECLAIMS,)

    def skus(self) -> Sequence[GpuSku]:
        """Returns the machine types of the table."""
        return self._cloud.skus

    def makes_type(self, instance_type: str) -> bool:
        """Returns whether a machine type is in the table, or named like those of the cloud."""
        return self._cloud.makes(instance_type)

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        """Creates missing NodeClaims, all at the same time, and deletes surplus ones once the others are ready.

        NodeClaims that no longer match the Workspace and have no pods, for instance of a machine type that has been
        corrected, are deleted at once.

        Raises:
            InvalidWorkspaceError: The Workspace requests a machine that cannot exist.
            ProviderError: The cluster has no NodeClaims.
            ClusterError: The API refuses a request for another reason.
        """
        existing = await cluster.list(NODECLAIMS, labels=owner_labels(request))
        plan = plan_claims(request, existing, self._cloud)
        await asyncio.gather(*(_delete(cluster, claim) for claim in plan.mistaken))
        now = self._now()
        attempts = await self._attempts(request, plan, cluster, now)
        manifests = () if attempts.must_wait(now) else plan.create
        made = await asyncio.gather(*(self._apply(cluster, manifest) for manifest in manifests))
        claims = (*plan.keep, *made)  # one may have existed, with its node, if somebody removed its labels
        names = [claim["status"]["nodeName"] for claim in claims if is_ready(claim)]
        read = names if request.gpus else []
        nodes = await asyncio.gather(*(cluster.get(NODES, name) for name in read))
        attempts = Attempts(plan.form) if len(names) >= request.count else attempts.observed(pending(claims))
        state = claims_state(request, claims, dict(zip(read, nodes, strict=True)), self._cloud, attempts)
        if not state.reason:
            await asyncio.gather(*(_delete(cluster, claim) for claim in plan.surplus))
        if attempts.next_at is not None and attempts.must_wait(now):
            state = replace(state, wake_after_seconds=(attempts.next_at - now).total_seconds())
        return replace(state, notes=attempts.notes())

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        """Deletes the Workspace's NodeClaims. Returns True once there are none, or if the cluster has no such type."""
        claims = await cluster.list(NODECLAIMS, labels=owner_labels(request))
        await asyncio.gather(
            *(_delete(cluster, claim) for claim in claims if not claim["metadata"].get("deletionTimestamp"))
        )
        return not claims

    async def _attempts(self, request: NodeRequest, plan: ClaimPlan, cluster: Cluster, now: datetime) -> Attempts:
        """Returns the record of earlier NodeClaims, with what has happened to them since."""
        attempts = Attempts.read(request.notes, plan.form, now)
        if not plan.create:
            return attempts
        lost = attempts.lost(claim["metadata"]["name"] for claim in plan.keep)
        if not lost and attempts.failures and not attempts.must_wait(now):
            return attempts  # events about the last attempt do not count for the next
        names = {*attempts.pending, *(claim["metadata"]["name"] for claim in plan.create)}
        words = await self._refusal(cluster, names, now)
        if lost or (words and not attempts.failures):
            return attempts.failed(words, now, request.uid)
        return attempts.refused(words)

    async def _refusal(self, cluster: Cluster, names: Iterable[str], now: datetime) -> str:
        """Returns why the cloud refused NodeClaims, "" if no recent event gives the reason."""
        try:
            events = await cluster.list(EVENTS, _EVENT_NAMESPACE)
        except ClusterError:
            return ""  # if events may not be read, the reason stays unknown
        return capacity_words(events, names, now)

    async def _apply(self, cluster: Cluster, manifest: KubeObject) -> KubeObject:
        try:
            return await cluster.apply(manifest)
        except ClusterError as error:
            if error.status == 404:
                raise ProviderError(
                    f"the cluster has no NodeClaims (karpenter.sh/v1): install Karpenter for {self._cloud.title}, or "
                    "use existing nodes with the annotation kaito.sh/node-provider: gpu_onprem"
                ) from error
            raise


async def _delete(cluster: Cluster, claim: KubeObject) -> None:
    metadata = claim["metadata"]
    await cluster.delete(NODECLAIMS, metadata["name"], uid=metadata.get("uid", ""))
