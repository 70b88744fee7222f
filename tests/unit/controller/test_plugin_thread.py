"""The thread in which hooks are called: results come back, and a blocking hook is named."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest

from kaito_core.controller.plugin_thread import PluginThread
from kaito_core.errors import BackendError
from kaito_core.plugins.calls import plugin_call


def play(story: Callable[[PluginThread], Awaitable[None]], seconds: float = 30.0) -> None:
    async def main() -> None:
        thread = PluginThread(seconds)
        await story(thread)
        thread.close()

    asyncio.run(main())


def test_what_a_function_returns_or_raises_comes_back_from_another_thread() -> None:
    subject: ContextVar[str] = ContextVar("subject")

    def function(value: int) -> tuple[int, str, int]:
        return value, subject.get(), threading.get_ident()

    def failing(error: BaseException) -> None:
        raise error

    async def story(thread: PluginThread) -> None:
        subject.set("w")
        value, name, ident = await thread.run(function, 3)
        assert (value, name) == (3, "w") and ident != threading.get_ident()
        for error in (ValueError("x"), SystemExit(3)):
            with pytest.raises(type(error)) as caught:
                await thread.run(failing, error)
            assert caught.value is error

    play(story)


def test_one_that_does_not_return_is_named_and_those_that_waited_are_not_run_later() -> None:
    entered, leave = threading.Event(), threading.Event()
    late: list[str] = []

    def blocking() -> None:
        with plugin_call("obs", "kaito_validate_workspace"):
            entered.set()
            assert leave.wait(30)

    async def story(thread: PluginThread) -> None:
        blocked = asyncio.create_task(thread.run(blocking))
        assert await asyncio.to_thread(entered.wait, 30)
        waiting = asyncio.create_task(thread.run(late.append, "late"))
        for task in (blocked, waiting):
            with pytest.raises(BackendError, match="plugin 'obs': kaito_validate_workspace did not return within"):
                await task
        leave.set()
        thread.close()
        assert thread._thread is not None
        await asyncio.to_thread(thread._thread.join, 30)
        assert late == []

    play(story, seconds=0.05)


def test_it_goes_on_after_one_that_was_too_slow() -> None:
    leave = threading.Event()

    async def story(thread: PluginThread) -> None:
        with pytest.raises(BackendError):
            await thread.run(leave.wait, 30)
        leave.set()
        while True:
            try:
                assert await thread.run(lambda: "again") == "again"
                return
            except BackendError:
                continue

    play(story, seconds=0.05)
