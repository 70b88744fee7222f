"""Fills the caches before the first pass, and lists everything again from time to time.

Watches do not report what was deleted while they were broken: after 410 Gone a watch lists again, and an object that
the list lacks is no event.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from kaito_core.api import ResourceType
from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.controller.backoff import backoff_seconds
from kaito_core.controller.metrics import Metrics
from kaito_core.controller.records import Change, Listing, Watched
from kaito_core.controller.watch.cache import Cache
from kaito_core.errors import ClusterError

__all__ = ["Resync"]

log = logging.getLogger(__name__)

#: The second listing comes early: an object deleted between the first one and the watch's own left no event.
_SECOND_SECONDS = 15.0
_NEWEST = 1 << 63  # no resource version is newer

Fetch = Callable[[ResourceType, str, str], Awaitable[Listing]]  #: resource type, namespace, label selector


class Resync:
    """Lists what is watched.

    Args:
        cache: The cache to fill.
        fetch: Lists the objects of a resource type from the API itself.
        namespaces: Watched namespaces; empty for all.
        interval_seconds: Between two listings.
        on_changes: Called with the differences that a listing found; the first time with everything.
        on_absent: Called with each watched resource type that the cluster does not serve.
        metrics: Where the time of the last listing is noted.
    """

    def __init__(
        self,
        cache: Cache,
        fetch: Fetch,
        namespaces: Sequence[str],
        interval_seconds: float,
        on_changes: Callable[[Sequence[Change]], None],
        on_absent: Callable[[ResourceType], None],
        metrics: Metrics,
    ) -> None:
        self._cache, self._fetch, self._namespaces = cache, fetch, namespaces
        self._interval_seconds, self._metrics = interval_seconds, metrics
        self._on_changes, self._on_absent = on_changes, on_absent
        self.is_synced = False

    async def run(self) -> None:
        """Runs until cancelled."""
        failures = 0
        while True:
            try:
                changes = [change for watched in self._cache.watched.values() for change in await self._list(watched)]
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

    async def _list(self, watched: Watched) -> list[Change]:
        """Lists a resource type and returns how the cache differed; a forbidden type is logged and left out."""
        resource, changes = watched.resource, list[Change]()
        for namespace in self._namespaces if resource.namespaced and self._namespaces else ("",):
            try:
                listing = await self._fetch(resource, namespace, WORKSPACE_LABEL if watched.labelled else "")
            except ClusterError as error:
                if error.status != 403:
                    raise
                log.error("grant the operator list and watch on %s: %s", resource.plural, error)
                continue
            if not listing.version:
                self._on_absent(resource)
            changes += self._cache.replace(resource, listing.items, listing.version or _NEWEST, namespace)
        return changes
