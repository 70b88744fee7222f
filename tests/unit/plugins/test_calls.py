"""What a plugin's code cannot do to the process that calls it."""

import asyncio
import logging
import threading

import pytest

from kaito_core.errors import PluginError
from kaito_core.plugins import calls
from kaito_core.plugins.calls import plugin_call, running_call


@pytest.mark.parametrize("error", [SystemExit(3), BaseException("odd"), asyncio.CancelledError("itself")], ids=repr)
def test_what_is_no_exception_becomes_one_that_names_the_plugin(error: BaseException) -> None:
    expected = f"plugin 'p': ensure raised {type(error).__name__}: {error}"
    with pytest.raises(PluginError) as caught, plugin_call("p", "ensure"):
        raise error
    assert (str(caught.value), caught.value.plugin, caught.value.__cause__) == (expected, "p", error)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()], ids=repr)
def test_exceptions_and_ctrl_c_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, plugin_call("p", "ensure"):
        raise error
    assert caught.value is error


def test_a_call_that_is_cancelled_ends_as_cancelled_and_one_that_cancels_itself_fails() -> None:
    async def call(future: asyncio.Future[None]) -> None:
        with plugin_call("p", "ensure", blocking=False):
            await future

    async def story() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(call(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert future.cancelled()
        with pytest.raises(PluginError, match="CancelledError"):
            await asyncio.create_task(call(future))

    asyncio.run(story())


def test_a_timeout_around_a_call_is_a_timeout() -> None:
    async def story() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                with plugin_call("p", "ensure", blocking=False):
                    await asyncio.get_running_loop().create_future()

    asyncio.run(story())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that calls go by."""
    now = [100.0]
    monkeypatch.setattr(calls.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(("seconds", "blocking", "named"), [(0.5, True, 0), (0.6, True, 1), (30.0, False, 0)])
def test_a_slow_call_that_holds_up_others_is_named_in_the_log(
    seconds: float, blocking: bool, named: int, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), plugin_call("obs", "kaito_reconciled", blocking=blocking):
        clock[0] += seconds
    message = f"plugin 'obs': kaito_reconciled took {seconds:.1f} s; it should take less than 0.5 s"
    assert [record.getMessage() for record in caplog.records] == [message] * named


def test_a_call_that_has_not_returned_can_be_named(clock: list[float]) -> None:
    me = threading.get_ident()
    assert running_call(me) == ("", 0.0)
    with plugin_call("obs", "kaito_reconciled"):
        clock[0] += 7
        assert running_call(me) == ("plugin 'obs': kaito_reconciled", 7.0)
    assert running_call(me) == ("", 0.0)
