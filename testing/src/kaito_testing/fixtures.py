"""The pytest plugin of kaito-testing: fixtures. It is loaded in every run, so what they need is imported when used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
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
