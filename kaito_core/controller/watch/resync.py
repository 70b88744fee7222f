"""Fills the caches before the first pass, and lists everything anew from time to time.

Watches tell what happens, but not what was deleted while they were broken: after 410 Gone a watcher lists again, and
an object that is absent from a list is no event.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.controller.metrics import Metrics
from kaito_core.controller.watch.cache import Change
from kaito_core.controller.work.loop import backoff_seconds
from kaito_core.errors import ClusterError

__all__ = ["Resync"]

log = logging.getLogger(__name__)

#: What was deleted between the first listing here and the watcher's own left no event either.
_SECOND_SECONDS = 15.0


class Resync:
    """Lists what is watched.

    Args:
        cluster: Whose cache is filled.
        namespaces: Namespaces that are watched, none for all.
        interval_seconds: How often.
        on_changes: Called with what a listing brought to light; the first time it is everything there is.
    """

    def __init__(
        self,
        cluster: KubernetesCluster,
        namespaces: Sequence[str],
        interval_seconds: float,
        on_changes: Callable[[Sequence[Change]], None],
        metrics: Metrics,
    ) -> None:
        self._cluster, self._namespaces, self._on_changes = cluster, namespaces, on_changes
        self._interval_seconds, self._metrics = interval_seconds, metrics
        self.is_synced = False

    async def run(self) -> None:
        """Runs until cancelled."""
        failures = 0
        while True:
            try:
                changes = await self._refresh()
            except ClusterError as error:
                log.warning("the caches cannot be filled, trying again: %s", error)
                await asyncio.sleep(backoff_seconds(failures, random.random()))
                failures += 1
                continue
            first, failures = not self.is_synced, 0
            self.is_synced = True
            self._metrics.refreshed.set(time.time())
            self._on_changes(changes)
            wait = min(_SECOND_SECONDS, self._interval_seconds) if first else self._interval_seconds
            await asyncio.sleep(wait * random.uniform(0.9, 1.1))

    async def _refresh(self) -> list[Change]:
        changes: list[Change] = []
        for watched in self._cluster.cache.watched.values():
            try:
                changes += await self._cluster.refresh(watched, WORKSPACE_LABEL, self._namespaces)
            except ClusterError as error:
                if error.status != 403:
                    raise
                log.error("grant the operator list and watch on %s: %s", watched.resource.plural, error)
        return changes
