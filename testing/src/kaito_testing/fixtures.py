"""The pytest plugin of kaito-testing: fixtures. It is loaded in every run, so what they need is imported when used."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kaito_core.plugins import PluginRegistry
    from kaito_testing.world.cluster import FakeCluster


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Silences a warning of pytest-asyncio, which kmock brings along, in packages that have not chosen a loop scope."""
    if not config.getini("asyncio_default_fixture_loop_scope"):
        warnings.filterwarnings(
            "ignore",
            message='The configuration option "asyncio_default_fixture_loop_scope" is unset',
            category=pytest.PytestDeprecationWarning,
        )


_SUITES = ("kaito_testing.conformance.", "kaito_karpenter.conformance")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Shows of a broken conformance rule what it says, not the code of the suite."""
    try:
        return (yield)
    except (AssertionError, pytest.fail.Exception) as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
        if isinstance(error, pytest.fail.Exception):
            raised_in = pyfuncitem.function.__module__
        if not raised_in.startswith(_SUITES):
            raise
        words = str(error).partition("\nassert ")[0]  # what follows is pytest's view of the expression
        raise pytest.fail.Exception(words, pytrace=False) from None


class Clock:
    """A clock that a test moves, for what takes the time as an argument."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Returns the time, in UTC."""
        return self.now

    def advance(self, seconds: float) -> datetime:
        """Moves the clock and returns the new time."""
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def kaito_clock() -> Clock:
    """A clock that starts on 2026-01-01 and stands still until a test moves it."""
    return Clock()


@pytest.fixture
def kaito_registry() -> PluginRegistry:
    """A registry of the installed plugins with the default settings; the environment is not read."""
    from kaito_core.plugins import PluginRegistry
    from kaito_core.settings import Settings

    return PluginRegistry.discover(Settings())


@pytest.fixture
def kaito_cluster() -> Iterator[FakeCluster]:
    """An emulated Kubernetes API on a local port, empty but for the usual namespaces."""
    from kaito_testing.world.cluster import FakeCluster

    with FakeCluster() as cluster:
        yield cluster
