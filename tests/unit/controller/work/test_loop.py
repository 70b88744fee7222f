"""The loop: one pass at a time for a key, none lost, later after failures."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kaito_core.controller import backoff
from kaito_core.controller.records import Key
from kaito_core.controller.work.loop import Loop, Outcome

A, B = ("ns", "a"), ("ns", "b")


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await story()

    asyncio.run(limited())


def test_a_wake_during_a_pass_is_one_more_pass() -> None:
    async def story() -> None:
        passes: list[Key] = []
        entered, leave, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def run(key: Key, streak: int) -> Outcome:
            passes.append(key)
            entered.set()
            await leave.wait()
            if len(passes) == 2:
                done.set()
            return Outcome()

        loop = Loop(run)
        loop.open()
        loop.wake(A)
        await entered.wait()
        for _ in range(3):
            loop.wake(A)
        assert passes == [A]  # never two at a time
        leave.set()
        await done.wait()
        await loop.close()
        assert passes == [A, A]

    play(story)


def test_wakes_while_a_key_waits_for_its_turn_are_one_pass_and_the_urgent_go_first() -> None:
    async def story() -> None:
        passes: list[Key] = []
        entered, leave = asyncio.Event(), asyncio.Event()

        async def run(key: Key, streak: int) -> Outcome:
            passes.append(key)
            entered.set()
            await leave.wait()
            return Outcome()

        loop = Loop(run, parallel=1)
        loop.open()
        loop.wake(("ns", "first"))
        await entered.wait()
        for _ in range(3):
            loop.wake(A)
            await asyncio.sleep(0)
        loop.wake(B, urgent=True)
        await asyncio.sleep(0)
        assert loop.depth == 2
        leave.set()
        await asyncio.gather(*(work.task for work in loop._work.values() if work.task is not None))
        await loop.close()
        assert passes == [("ns", "first"), B, A]

    play(story)


def test_nothing_runs_before_it_is_opened_and_all_runs_then() -> None:
    async def story() -> None:
        passes: list[Key] = []
        both = asyncio.Event()

        async def run(key: Key, streak: int) -> Outcome:
            passes.append(key)
            if len(passes) == 2:
                both.set()
            return Outcome()

        loop = Loop(run)
        loop.wake(A)
        loop.wake(B)
        await asyncio.sleep(0)
        assert passes == []
        loop.open()
        await both.wait()
        await loop.close()
        assert sorted(passes) == [A, B]

    play(story)


def test_failures_are_tried_again_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.001)

    async def story() -> None:
        streaks: list[int] = []
        done = asyncio.Event()

        async def run(key: Key, streak: int) -> Outcome:
            streaks.append(streak)
            if len(streaks) == 1:
                raise KeyError("a fault of ours")
            if len(streaks) == 2:
                return Outcome(failed=True)
            if len(streaks) == 3:
                return Outcome(wake_after_seconds=0.0)
            done.set()
            return Outcome()

        loop = Loop(run)
        loop.open()
        loop.wake(A)
        await done.wait()
        await loop.close()
        assert streaks == [0, 1, 2, 0]

    play(story)


def test_a_pass_that_asks_to_exit_ends_neither_the_others_nor_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.001)

    async def story() -> None:
        passes: list[Key] = []
        done = asyncio.Event()

        async def run(key: Key, streak: int) -> Outcome:
            passes.append(key)
            if key == A and streak == 0:
                raise SystemExit(3)
            if {A, B} <= set(passes) and passes.count(A) == 2:
                done.set()
            return Outcome()

        loop = Loop(run)
        loop.open()
        loop.wake(A)
        loop.wake(B)
        await done.wait()
        await loop.close()

    play(story)


def test_a_fight_over_an_object_is_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        streaks: list[int] = []
        put_off: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda delay, *_: put_off.set_result(delay))

        async def run(key: Key, streak: int) -> Outcome:
            streaks.append(streak)
            return Outcome(acted=True)

        loop = Loop(run)
        loop.open()
        loop.wake(A)
        assert await put_off > 1
        assert streaks == [0, 1, 2, 3, 4, 5]

    play(story)


def test_a_key_that_is_gone_is_forgotten() -> None:
    async def story() -> None:
        async def run(key: Key, streak: int) -> Outcome:
            return Outcome(gone=True)

        loop = Loop(run)
        loop.open()
        loop.wake(A)
        task = loop._work[A].task
        assert task is not None
        await task
        assert not loop._work

    play(story)
