"""Slots for passes: who gets the next one, and that none is lost."""

import asyncio
from collections.abc import Awaitable, Callable

from kaito_core.controller.work.fair_slots import FairSlots


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await story()

    asyncio.run(limited())


async def hold(slots: FairSlots, name: str, order: list[str], *, urgent: bool = False) -> None:
    async with slots.taken(urgent=urgent):
        order.append(name)


async def queue(slots: FairSlots, names: list[str], order: list[str]) -> list[asyncio.Task[None]]:
    """Lets those of the names wait, in their order; names in capitals are urgent."""
    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(hold(slots, name, order, urgent=name.isupper())))
        await asyncio.sleep(0)
    return tasks


def test_the_urgent_come_first_and_equals_in_their_order() -> None:
    async def story() -> None:
        slots, order = FairSlots(1), list[str]()
        async with slots.taken(urgent=False):
            tasks = await queue(slots, ["a", "b", "A", "B"], order)
            assert order == []
        await asyncio.gather(*tasks)
        assert order == ["A", "B", "a", "b"]

    play(story)


def test_a_flood_of_the_urgent_does_not_keep_the_others_out() -> None:
    async def story() -> None:
        slots, order = FairSlots(1), list[str]()
        async with slots.taken(urgent=False):
            tasks = await queue(slots, ["a", "b", *(["A"] * 20)], order)
        await asyncio.gather(*tasks)
        assert order.index("a") < order.index("b") < 20

    play(story)


def test_as_many_run_at_a_time_as_there_are_places() -> None:
    async def story() -> None:
        slots, running, most = FairSlots(3), 0, 0

        async def work() -> None:
            nonlocal running, most
            async with slots.taken(urgent=False):
                running += 1
                most = max(most, running)
                await asyncio.sleep(0)
                running -= 1

        await asyncio.gather(*(work() for _ in range(10)))
        assert most == 3

    play(story)


def test_one_that_is_cancelled_leaves_its_place_to_the_next_whenever_that_happens() -> None:
    async def story() -> None:
        for is_given_it in (False, True):
            slots, order = FairSlots(1), list[str]()
            async with slots.taken(urgent=False):
                first, second = await queue(slots, ["a", "b"], order)
                if not is_given_it:
                    first.cancel()
                    await asyncio.sleep(0)
            first.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert order == ["b"]
            await hold(slots, "c", order)  # the place is free again
            assert order == ["b", "c"]

    play(story)
