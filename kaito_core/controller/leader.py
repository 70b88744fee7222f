"""Leader election: of several operators the one that holds a Lease acts. What it does then is in `app`.

The election of the `kubernetes` package is not used: its requests have no deadline, so that a leader whose API hangs
goes on leading after its Lease has expired; a network error ends it; it trusts the wall clock; it never releases.
"""

import asyncio
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.controller.resources import LEASE_NAME, LEASES
from kaito_core.errors import ClusterError

__all__ = ["Election", "stand_by"]

log = logging.getLogger(__name__)

#: Fractions of the Lease's duration: between two attempts to renew it, and after which a leader without success stops
#: leading. The rest is the time in which it stops, before another one can begin.
_RETRY_PART, _DEADLINE_PART = 2 / 15, 10 / 15


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Election:
    """One candidate for a Lease.

    Args:
        cluster: Where the Lease is.
        namespace: Namespace of the Lease.
        lease_seconds: How long others wait for a leader that does not renew it.
        clock: Monotonic seconds; the wall clocks of two machines may differ.
    """

    def __init__(
        self,
        cluster: KubernetesCluster,
        namespace: str,
        lease_seconds: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A pod on its node's network has the node's host name.
        self.identity = f"{os.environ.get('POD_ID') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._cluster, self._namespace, self._lease_seconds, self._clock = cluster, namespace, lease_seconds, clock
        self._retry_seconds = lease_seconds * _RETRY_PART
        self._renewed = float("-inf")  # when the last successful attempt began
        self._seen: tuple[str, float] = ("", 0.0)  # resource version of another's Lease, and since when it is so

    async def acquire(self) -> None:
        """Waits until this candidate leads."""
        while True:
            if await self._attempt():
                break
            await asyncio.sleep(self._retry_seconds)
        log.info("leading, as %s", self.identity)

    @property
    def leads(self) -> bool:
        """Whether no other candidate can lead yet; asked before every write, since a process can be suspended."""
        return self._clock() < self._renewed + self._lease_seconds * _DEADLINE_PART

    async def keep(self) -> None:
        """Renews the Lease while that succeeds; returns when this candidate must not act any more."""
        while self.leads:
            await asyncio.sleep(self._retry_seconds)
            await self._attempt()
        log.error("the Lease %s/%s is lost", self._namespace, LEASE_NAME)

    async def release(self) -> None:
        """Gives the Lease up, so that another candidate leads at once; where that fails the Lease expires."""
        self._renewed = float("-inf")
        try:
            async with asyncio.timeout(self._retry_seconds):
                lease = await self._cluster.get(LEASES, LEASE_NAME, self._namespace)
                if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                    await self._write(lease, {"holderIdentity": "", "leaseDurationSeconds": 1})
        except (ClusterError, TimeoutError) as error:
            log.warning("the Lease was not released: %s", error)

    async def _attempt(self) -> bool:
        began = self._clock()
        try:
            async with asyncio.timeout(self._retry_seconds):
                leads = await self._take()
        except (ClusterError, TimeoutError) as error:
            if not isinstance(error, ClusterError) or error.status != 409:  # another candidate was faster
                log.warning("the Lease %s/%s: %s", self._namespace, LEASE_NAME, error or "no answer")
            return False
        if leads:
            self._renewed = began
        return leads

    async def _take(self) -> bool:
        """Creates, renews or takes over the Lease; returns False while another candidate holds it."""
        spec: dict[str, Any] = {"holderIdentity": self.identity, "leaseDurationSeconds": self._lease_seconds}
        spec["renewTime"] = _micro_time()
        lease = await self._cluster.get(LEASES, LEASE_NAME, self._namespace)
        if lease is None:
            metadata = {"name": LEASE_NAME, "namespace": self._namespace}
            spec |= {"acquireTime": spec["renewTime"], "leaseTransitions": 0}
            manifest = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}
            await self._cluster.create(LEASES, manifest, lease=True)
            return True
        held = lease.get("spec") or {}
        holder = held.get("holderIdentity") or ""
        if holder != self.identity:
            if holder and not self._has_expired(lease, held):
                return False
            transitions = int(held.get("leaseTransitions") or 0) + 1
            spec |= {"acquireTime": spec["renewTime"], "leaseTransitions": transitions}
        await self._write(lease, spec)
        return True

    def _has_expired(self, lease: KubeObject, held: KubeObject) -> bool:
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, self._clock())
        lasts = float(held.get("leaseDurationSeconds") or self._lease_seconds)
        return self._clock() >= self._seen[1] + lasts

    async def _write(self, lease: KubeObject, spec: KubeObject) -> None:
        # Its resource version lets only one of two candidates succeed.
        await self._cluster.replace(LEASES, {**lease, "spec": {**(lease.get("spec") or {}), **spec}}, lease=True)


async def stand_by(election: Election, stopping: asyncio.Event) -> bool:
    """Waits until this candidate leads; returns False where the process is stopped first.

    Args:
        election: The candidate.
        stopping: Set when the process stops; SIGTERM and SIGINT set it meanwhile, in the main thread only.
    """
    loop = asyncio.get_running_loop()
    in_main_thread = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGTERM, signal.SIGINT) if in_main_thread else ()
    for number in signals:  # kopf handles them once it runs
        loop.add_signal_handler(number, stopping.set)
    acquired = asyncio.create_task(election.acquire(), name="election")
    stopped = asyncio.create_task(stopping.wait(), name="stopped")
    try:
        await asyncio.wait({acquired, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.is_set():
            acquired.result()  # raises what ended the election
            return True
        if acquired.done():
            await election.release()
        return False
    finally:
        for task in (acquired, stopped):
            task.cancel()
        await asyncio.gather(acquired, stopped, return_exceptions=True)
        for number in signals:
            loop.remove_signal_handler(number)
