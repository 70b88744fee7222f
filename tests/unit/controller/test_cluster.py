"""The operator's client of the Kubernetes API, on the emulated one: who may write, and what a busy API asks for."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kaito_core.api import ResourceType
from kaito_core.controller.cluster import KubernetesCluster, connect
from kaito_core.controller.leader import Election
from kaito_core.controller.records import Write
from kaito_core.controller.resources import LEASES
from kaito_core.controller.watch.cache import Cache
from kaito_core.errors import ClusterError
from kaito_testing.world.client import KubeClient
from kaito_testing.world.cluster import FakeCluster

CONFIG_MAPS = ResourceType("", "v1", "configmaps", "ConfigMap")
CM = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "data": {"k": "1"}}

Act = Callable[[KubernetesCluster], Awaitable[Any]]
Run = Callable[[Act], Any]


@pytest.fixture
def run(kaito_cluster: FakeCluster, tmp_path: Path) -> Run:
    """Runs a coroutine with a client whose answers may take two seconds."""

    def runner(act: Act) -> Any:
        async def main() -> Any:
            kubeconfig = str(kaito_cluster.kubeconfig(tmp_path / "kubeconfig"))
            async with await connect(Cache(()), (CONFIG_MAPS, LEASES), kubeconfig, 2.0) as cluster:
                return await act(cluster)

        return asyncio.run(main())

    return runner


def test_one_that_does_not_lead_sends_no_write_but_the_leases(run: Run, kaito_cluster: FakeCluster) -> None:
    told: list[Write] = []

    async def act(cluster: KubernetesCluster) -> None:
        cluster.may_write = lambda: False
        with pytest.raises(ClusterError, match="does not lead any more"):
            await cluster.apply(CM)
        with pytest.raises(ClusterError, match="does not lead any more"):
            await cluster.delete(CONFIG_MAPS, "a", "default")
        cluster.on_write = told.append
        await Election(cluster, "default", 15).acquire()

    run(act)
    assert [(write.verb, write.resource.kind) for write in told] == [("create", "Lease")]
    assert [record.path.rsplit("/", 1)[1] for record in kaito_cluster.writes()] == ["leases"]


def test_a_candidate_leads_for_less_time_than_others_wait(run: Run) -> None:
    now = [1000.0]

    async def act(cluster: KubernetesCluster) -> None:
        election = Election(cluster, "default", 15, lambda: now[0])
        assert not election.leads
        await election.acquire()
        now[0] += 9.9
        assert election.leads
        now[0] += 0.2
        assert not election.leads
        await election.acquire()
        await election.release()
        assert not election.leads

    run(act)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_api_is_asked_again_when_it_says(status: int, run: Run, kaito_cluster: FakeCluster) -> None:
    kaito_cluster.fail("PATCH", "/configmaps/a$", status, retry_after_seconds=1)
    told: list[Write] = []

    async def act(cluster: KubernetesCluster) -> None:
        cluster.on_write = told.append
        await cluster.apply(CM)

    run(act)
    assert [write.status for write in told] == [status, 201]  # each attempt is a write
    first, second = kaito_cluster.writes()
    assert (first.status, second.status) == (status, 201)
    assert second.at_seconds - first.at_seconds >= 1.0


def test_a_busy_api_that_says_nothing_or_too_much_is_left_to_the_loop(run: Run, kaito_cluster: FakeCluster) -> None:
    for seconds in (0, 3600):
        kaito_cluster.fail("PATCH", "/configmaps/a$", 429, retry_after_seconds=seconds)
        with pytest.raises(ClusterError) as caught:
            run(lambda cluster: cluster.apply(CM))
        assert caught.value.status == 429
    assert len(kaito_cluster.writes()) == 2


def test_an_api_that_stays_busy_is_not_asked_for_ever(run: Run, kaito_cluster: FakeCluster) -> None:
    kaito_cluster.fail("GET", "/version", 429, times=100, retry_after_seconds=1)
    assert run(lambda cluster: cluster.why_silent()) == "no answer within 3 seconds"
    assert len(kaito_cluster.requests(path="/version")) <= 4


@pytest.mark.parametrize("manner", ["hang", "cut"])
def test_no_answer_is_an_error_without_a_status(manner: Any, run: Run, kaito_cluster: FakeCluster) -> None:
    kaito_cluster.fail("PATCH", "/configmaps/a$", manner=manner)
    writes: list[Write] = []

    async def act(cluster: KubernetesCluster) -> None:
        cluster.on_write = writes.append
        with pytest.raises(ClusterError) as caught:
            await cluster.apply(CM)
        assert caught.value.status == 0
        await cluster.apply(CM)

    run(act)
    served = 201 if manner == "hang" else 200
    assert [(write.verb, write.resource.kind, write.status) for write in writes] == [
        ("patch", "ConfigMap", 0),
        ("patch", "ConfigMap", served),
    ]


def test_an_api_that_answers_is_reached_and_one_that_fails_is_not(run: Run, kaito_cluster: FakeCluster) -> None:
    assert run(lambda cluster: cluster.why_silent()) == ""
    kaito_cluster.fail("GET", "/version", 403)
    assert run(lambda cluster: cluster.why_silent()) == ""
    kaito_cluster.fail("GET", "/version", 500, message="etcd is gone")
    assert "etcd is gone" in run(lambda cluster: cluster.why_silent())


def test_the_proxy_of_the_environment_is_taken_but_for_hosts_that_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "in.example")

    def proxy(url: str) -> str | None:
        async def main() -> str | None:
            async with await connect(
                Cache(()), (), str(KubeClient(url).kubeconfig(tmp_path / "kubeconfig"))
            ) as cluster:
                return (await cluster.connection()).proxy

        return asyncio.run(main())

    assert proxy("https://out.example") == "http://proxy.example:3128"
    assert proxy("https://api.in.example:6443") is None
