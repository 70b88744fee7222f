"""Providers with a start and a close: called once each, and one that fails costs nothing but itself."""

import asyncio
import logging
from typing import Any

import pytest

from kaito_core.api import Cluster
from kaito_core.builtin.scheduler import SchedulerProvider
from kaito_core.controller.work import provider_life
from kaito_core.controller.work.provider_life import running_providers
from kaito_testing.registry import registry_with
from kaito_testing.world.memory_cluster import MemoryCluster


class Living(SchedulerProvider):
    """A provider that notes its life; `fault` is what its start and close do instead of returning."""

    def __init__(self, name: str, fault: Any = None) -> None:
        super().__init__()
        self._name, self._fault = name, fault
        self.life: list[object] = []

    @property
    def name(self) -> str:
        return self._name

    async def start(self, cluster: Cluster) -> None:
        self.life.append(cluster)
        await self._fail()

    async def close(self) -> None:
        self.life.append("closed")
        await self._fail()

    async def _fail(self) -> None:
        if self._fault is asyncio.sleep:
            await asyncio.sleep(3600)
        elif self._fault is not None:
            raise self._fault


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (OSError("no route"), "start of node provider 'bad' failed"),
        (SystemExit(3), "start of node provider 'bad' failed"),
        (asyncio.CancelledError(), "start of node provider 'bad' failed"),
        (asyncio.sleep, "start of node provider 'bad' did not return within 0.01 seconds"),
    ],
)
def test_each_is_started_and_closed_whatever_the_others_do(
    fault: Any, words: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(provider_life, "_START_SECONDS", 0.01)
    monkeypatch.setattr(provider_life, "_CLOSE_SECONDS", 0.01)
    good, bad, cluster = Living("good"), Living("bad", fault), MemoryCluster()
    registry = registry_with(providers=[good, bad])

    async def life() -> None:
        async with running_providers(registry, cluster):
            assert good.life == [cluster]

    with caplog.at_level(logging.ERROR):
        asyncio.run(life())
    assert good.life == bad.life == [cluster, "closed"]
    said = [record.getMessage() for record in caplog.records]
    assert f"plugin 'given': {words}" in said
    assert f"plugin 'given': {words.replace('start', 'close')}" in said


def test_what_ends_the_operator_closes_them_too() -> None:
    good = Living("good")

    async def life() -> None:
        async with running_providers(registry_with(providers=[good]), MemoryCluster()):
            raise RuntimeError("a watch failed")

    with pytest.raises(RuntimeError):
        asyncio.run(life())
    assert good.life[-1] == "closed"
