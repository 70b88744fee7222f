"""Fixtures that pytest finds by itself wherever kaito-core is installed. What they need is imported when used."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kaito_core.plugins import PluginRegistry
    from kaito_testing.world.cluster import FakeCluster


class Clock:
    """A clock that stands still until it is told to go on: what `plan(..., now=clock())` is given in tests."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Returns the time, in UTC."""
        return self.now

    def advance(self, seconds: float) -> datetime:
        """Lets `seconds` pass and returns the time then."""
        self.now += timedelta(seconds=seconds)
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def kaito_registry() -> PluginRegistry:
    """A registry of the installed plugins, with default settings whatever the environment says."""
    from kaito_core.plugins import PluginRegistry
    from kaito_core.settings import Settings

    return PluginRegistry.discover(Settings())


@pytest.fixture
def fake_cluster() -> Iterator[FakeCluster]:
    """An emulated Kubernetes API on a local port, empty but for the usual namespaces; needs kaito-core[testing]."""
    from kaito_testing.world.cluster import FakeCluster

    with FakeCluster() as cluster:
        yield cluster
