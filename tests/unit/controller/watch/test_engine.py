"""How kopf is run: its end, also where one of its tasks misses the cancellation."""

import asyncio
from typing import Any

import kopf
import pytest

from kaito_core.controller.watch import engine
from kaito_core.controller.watch.cache import watched_resources
from kaito_core.controller.watch.engine import watch, watch_settings
from kaito_core.errors import ClusterError
from kaito_core.reconcile.objects.manifests import PODS


def run(monkeypatch: pytest.MonkeyPatch, operator: Any) -> None:
    async def main() -> None:
        stopping = asyncio.Event()
        stopping.set()
        async with asyncio.timeout(30):
            await watch(kopf.OperatorRegistry(), watch_settings((), 60), (), stopping)

    monkeypatch.setattr(engine, "_END_SECONDS", 0.01)
    monkeypatch.setattr(kopf, "operator", operator)
    asyncio.run(main())


def test_a_task_of_kopfs_that_misses_one_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    missed: list[str] = []

    async def task() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            missed.append("once")
            await asyncio.get_running_loop().create_future()

    async def operator(**_: Any) -> None:
        watcher = asyncio.create_task(task())
        await asyncio.sleep(0)
        watcher.cancel()
        await asyncio.wait({watcher})

    run(monkeypatch, operator)
    assert missed == ["once"]


def test_a_watch_that_fails_for_good_is_an_error_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    async def operator(**_: Any) -> None:
        raise RuntimeError("etcd is gone")

    with pytest.raises(ClusterError, match="the cluster cannot be watched any more: etcd is gone"):
        run(monkeypatch, operator)


def test_children_are_watched_by_their_label_and_attempts_never_end() -> None:
    settings = watch_settings(watched_resources((PODS,), ()), 60)
    resource = kopf.Resource(PODS.group, PODS.version, PODS.plural)
    assert list(settings.watching.label_selectors.collect(resource)) == ["kaito.sh/workspace"]
    backoffs = settings.networking.error_backoffs
    assert not isinstance(backoffs, int | float)
    for _ in range(2):  # each request begins anew
        waits = [wait for wait, _ in zip(backoffs, range(1000), strict=False)]
        assert waits[:6] == [1, 2, 4, 8, 15, 30] and len(waits) == 1000
