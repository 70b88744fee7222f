"""Which watches have been silent for too long."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from kaito_core.controller.watch.heartbeat import Heartbeat

PODS, NODES = "/api/v1/namespaces/a/pods", "/api/v1/nodes"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_each_watch_is_judged_by_itself() -> None:
    clock = Clock()
    heartbeat = Heartbeat(60, clock)
    heartbeat.beat(PODS)
    heartbeat.beat(NODES)
    clock.now += 60
    assert heartbeat.silent() == {}
    heartbeat.beat(NODES)
    clock.now += 1
    assert heartbeat.silent() == {PODS: 61}
    heartbeat.beat(PODS)
    assert heartbeat.silent() == {}


def test_what_was_never_opened_or_is_not_served_any_more_is_not_judged() -> None:
    clock = Clock()
    heartbeat = Heartbeat(60, clock)
    clock.now += 3600
    assert heartbeat.silent() == {}
    heartbeat.beat(PODS)
    heartbeat.beat(NODES)
    heartbeat.forget("pods")
    clock.now += 3600
    assert list(heartbeat.silent()) == [NODES]


def test_no_limit_is_no_limit() -> None:
    clock = Clock()
    heartbeat = Heartbeat(0, clock)
    heartbeat.beat(PODS)
    clock.now += 1e9
    assert heartbeat.silent() == {}


@pytest.mark.parametrize(("silence", "seconds"), [(900, 225), (86400, 300), (0, 300), (3, 1)])
def test_a_watch_is_opened_anew_well_before_it_counts_as_silent(silence: float, seconds: int) -> None:
    assert Heartbeat(silence).watch_seconds == seconds


def test_an_opened_watch_is_a_beat_and_nothing_else_is() -> None:
    beats: list[str] = []

    async def main() -> None:
        heartbeat = Heartbeat(60)
        heartbeat.beat = beats.append  # type: ignore[method-assign]

        async def answer(request: web.Request) -> web.Response:
            return web.Response(status=403 if request.path == PODS else 200)

        app = web.Application()
        app.add_routes([web.get("/{path:.*}", answer)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(trace_configs=[heartbeat.trace()]) as session:
            for path, watch in ((NODES, {}), (PODS, {"watch": "true"}), (NODES, {"watch": "true"})):
                (await session.get(url + path, params=watch)).close()
        await runner.cleanup()

    asyncio.run(main())
    assert beats == [NODES]
