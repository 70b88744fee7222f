"""What shows that KAITO's own operator is on the cluster, and how often it is looked for."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from kaito_core.controller.work.neighbour import CHECK_SECONDS, Neighbour, standing_by
from kaito_core.errors import ClusterError
from kaito_core.reconcile.takeover import UPSTREAM_LEASE, UPSTREAM_WEBHOOK

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Cluster:
    """A cluster with these Leases; reading the webhook's configuration gives `found`, or raises it."""

    def __init__(self, found: Any = None, **spec: object) -> None:
        self.found, self.looks = found, 0
        self.leases = [{"metadata": {"name": UPSTREAM_LEASE, "namespace": "kaito"}, "spec": spec}] if spec else []

    async def get(self, resource: object, name: str, namespace: str = "") -> Any:
        self.looks += 1
        assert name == UPSTREAM_WEBHOOK
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def fetch(self, resource: object, *, fields: str) -> Any:
        assert fields == f"metadata.name={UPSTREAM_LEASE}"
        return SimpleNamespace(items=self.leases)


def sign(cluster: Cluster) -> str:
    return asyncio.run(Neighbour(cluster, now=lambda: NOW).sign())  # type: ignore[arg-type]


def renewed(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


HELD = {"holderIdentity": "a", "leaseDurationSeconds": 15}


@pytest.mark.parametrize(
    ("cluster", "found"),
    [
        (Cluster(), ""),
        (Cluster({"metadata": {}}), f"ValidatingWebhookConfiguration '{UPSTREAM_WEBHOOK}'"),
        (Cluster(ClusterError("forbidden", status=403)), ""),
        (Cluster(renewTime=renewed(5), **HELD), f"Lease 'kaito/{UPSTREAM_LEASE}'"),
        (Cluster(renewTime=renewed(-5), **HELD), f"Lease 'kaito/{UPSTREAM_LEASE}'"),
        (Cluster(renewTime=renewed(3600), **HELD), ""),
        (Cluster(renewTime="soon", **HELD), ""),
        (Cluster(renewTime=None, **HELD), ""),
        (Cluster(renewTime="2026-01-01T00:00:00", **HELD), ""),
        (Cluster(renewTime=renewed(5), holderIdentity="", leaseDurationSeconds=15), ""),
        (
            Cluster(renewTime=renewed(5), holderIdentity="a", leaseDurationSeconds="long"),
            f"Lease 'kaito/{UPSTREAM_LEASE}'",
        ),
    ],
)
def test_what_shows_it(cluster: Cluster, found: str) -> None:
    assert sign(cluster) == found


def test_an_api_that_does_not_answer_is_no_sign_of_absence() -> None:
    with pytest.raises(ClusterError):
        sign(Cluster(ClusterError("no answer")))


def test_it_looks_once_a_minute() -> None:
    now, cluster = [0.0], Cluster()
    neighbour = Neighbour(cluster, clock=lambda: now[0], now=lambda: NOW)  # type: ignore[arg-type]
    for at in (0.0, CHECK_SECONDS - 1, CHECK_SECONDS, CHECK_SECONDS + 1):
        now[0] = at
        asyncio.run(neighbour.sign())
    assert cluster.looks == 2


def test_the_event_says_what_to_do() -> None:
    event = standing_by("Lease 'kaito/x'")
    assert (event.type, event.reason) == ("Warning", "AnotherOperator")
    assert "(Lease 'kaito/x')" in event.message and "uninstall that operator" in event.message
