"""Two operators at once: one leads, the other stands by and takes over."""

import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from kaito_core.controller.resources import LEASE_NAME
from kaito_core.errors import ClusterError
from kaito_core.settings import Settings
from scenarios.support.process import Process
from scenarios.support.state import belongings, end_state, settled
from scenarios.support.world import World, adapter, workspace

_SECONDS = 3  #: of a Lease that has to run out


def _settings(world: World, lease_seconds: int = 15, health_port: int = 0) -> Settings:
    return Settings(
        namespaces=(world.namespace,),
        health_port=health_port,
        leader_election=True,
        leader_election_namespace=world.namespace,
        lease_seconds=lease_seconds,
    )


def _holder(world: World) -> str:
    return str(((world.get("leases", LEASE_NAME) or {}).get("spec") or {}).get("holderIdentity") or "")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _is_ready(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=5).read() == b"ok")
    except OSError:  # not there yet, or 503
        return False


def test_the_one_that_stands_by_takes_over(world: World, standby: World) -> None:
    port = _free_port()
    world.start(settings=_settings(world))
    first = _holder(world)
    standby.launch(settings=_settings(world, health_port=port))
    url = f"http://127.0.0.1:{port}/readyz"
    world.wait("it answers", lambda: _is_ready(url))
    world.apply(workspace("w", adapters=[adapter("style", "0.5")]))
    settled(world, "w", {"style": ("0.5", "Ready")})
    world.wait_state("w", "Ready")
    assert _is_ready(url)
    assert standby.passes.seen == [] and not standby.is_ready
    before = end_state(world)
    world.stop()
    world.wait("another leads", lambda: _holder(world) not in ("", first))
    standby.wait_ready()
    assert end_state(world) == before
    standby.apply(workspace("w", adapters=[adapter("style", "0.75")]))
    settled(standby, "w", {"style": ("0.75", "Ready")})
    assert len(belongings(world, "deployments")) == 1
    assert world.existing("leases", LEASE_NAME)["spec"]["leaseTransitions"] == 1


@pytest.mark.slow  # a Lease runs out
def test_a_leader_that_cannot_renew_ends_before_another_begins(world: World, standby: World) -> None:
    world.start(settings=_settings(world, _SECONDS))
    first = _holder(world)
    cut_off = world.cluster.fail("PUT", "/leases/", 500, times=10**9)
    with pytest.raises(ClusterError, match="the Lease is lost"):
        world.join()
    assert _holder(world) == first  # not released: nobody else has begun
    cut_off.times = 0
    standby.start(settings=_settings(world, _SECONDS))
    assert _holder(world) not in ("", first)
    standby.apply(workspace("w"))
    standby.wait_state("w", "Ready")


def test_one_that_stands_by_can_be_stopped(world: World, standby: World) -> None:
    world.start(settings=_settings(world))
    standby.launch(settings=_settings(world))
    standby.stop()
    assert not standby.is_ready


def _deeds(process: Process) -> list[str]:
    """Returns what a process has changed, by its log."""
    return [line["message"] for line in process.lines() if line.get("action") not in (None, "Pass")]


@pytest.mark.slow  # Python processes start, and a Lease runs out
def test_a_leader_that_stood_still_past_its_lease_writes_nothing_more(world: World, tmp_path: Path) -> None:
    options = {"leader_election": True, "leader_election_namespace": world.namespace, "lease_seconds": _SECONDS}
    options["namespaces"] = world.namespace
    with Process(world.cluster, tmp_path, **options) as first:
        one = world.wait("one leads", lambda: _holder(world))
        with Process(world.cluster, tmp_path, **options) as second:
            world.apply(workspace("w", "smollm2-135m-instruct"))
            world.wait_state("w", "Ready")
            before = end_state(world)
            first.send(signal.SIGSTOP)
            world.wait("another leads", lambda: _holder(world) not in ("", one))
            world.apply(workspace("w", "smollm2-135m-instruct", resource={"count": 2}))
            world.wait_state("w", "Ready")
            # While it stands still the world changes, so that it wakes up with something that it would write.
            world.patch("deployments", "w", {"spec": {"replicas": 5}})
            world.wait("put right", lambda: world.existing("deployments", "w")["spec"]["replicas"] == 2)
            done = _deeds(first)
            first.send(signal.SIGCONT)
            assert first.wait() == 1  # it knows that it has lost, and is started anew as one that stands by
            assert any("the Lease is lost" in line["message"] for line in first.errors())
            assert _deeds(first) == done != []
            assert world.wait_state("w", "Ready") and end_state(world) != before
            assert len(belongings(world, "deployments")) == 1
            second.send(signal.SIGTERM)
            assert second.wait() == 0
    assert _holder(world) == ""  # released: the next one need not wait
