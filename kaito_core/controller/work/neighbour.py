"""KAITO's own operator on the same cluster: whether it is there, and what it leaves behind when it is gone.

Two operators would undo each other's work without end. It does not know of us, so that we are the ones who stand by.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from kaito_core.api import KubeObject
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.controller.resources import LEASES
from kaito_core.controller.webhook.objects import WEBHOOKS
from kaito_core.errors import ClusterError
from kaito_core.reconcile.takeover import UPSTREAM_LEASE, UPSTREAM_WEBHOOK
from kaito_core.reconcile.transition import Event

__all__ = ["CHECK_SECONDS", "Neighbour", "standing_by"]

CHECK_SECONDS = 60.0  # between two looks, and until a Workspace that stands by is looked at again


def standing_by(sign: str) -> Event:
    """Returns the event about a Workspace that is left to the other operator.

    Args:
        sign: What shows that it is there.
    """
    message = (
        f"KAITO's own operator serves this cluster ({sign}), so that this one stands by: uninstall that operator and "
        "delete what is named, and this one takes the Workspace over within a minute"
    )
    return Event("Warning", "AnotherOperator", message)


class Neighbour:
    """Looks for KAITO's own operator, at most once a minute.

    Args:
        cluster: Where to look.
        clock: Monotonic seconds.
        now: The clock, for the Lease.
    """

    def __init__(
        self,
        cluster: KubernetesCluster,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster, self._clock, self._now = cluster, clock, now
        self._seen_at, self._sign = float("-inf"), ""

    async def sign(self) -> str:
        """Returns what shows that it is there, "" where nothing does, or where we may not look.

        Raises:
            ClusterError: The API does not answer.
        """
        if self._clock() - self._seen_at >= CHECK_SECONDS:
            self._sign, self._seen_at = await self._look(), self._clock()
        return self._sign

    async def _look(self) -> str:
        try:
            if await self._cluster.get(WEBHOOKS, UPSTREAM_WEBHOOK) is not None:
                return f"{WEBHOOKS.kind} '{UPSTREAM_WEBHOOK}'"
            leases = (await self._cluster.fetch(LEASES, fields=f"metadata.name={UPSTREAM_LEASE}")).items
        except ClusterError as error:
            if error.status != 403:
                raise
            return ""
        for lease in leases:
            if self._is_held(lease.get("spec") or {}):
                return f"{LEASES.kind} '{lease['metadata']['namespace']}/{UPSTREAM_LEASE}'"
        return ""

    def _is_held(self, spec: KubeObject) -> bool:
        if not spec.get("holderIdentity"):
            return False
        try:
            renewed = datetime.fromisoformat(str(spec.get("renewTime")))
        except ValueError:
            return False
        seconds = spec.get("leaseDurationSeconds")
        valid = timedelta(seconds=(seconds if isinstance(seconds, int) else 15) + CHECK_SECONDS)
        # The holder's clock is not ours; a time without a zone is nobody's.
        return renewed.tzinfo is not None and self._now() - renewed < valid
