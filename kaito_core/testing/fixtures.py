"""Fixtures that pytest finds by itself wherever kaito-core is installed. What they need is imported when used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kaito_core.testing.cluster import FakeCluster


@pytest.fixture
def fake_cluster() -> Iterator[FakeCluster]:
    """An emulated Kubernetes API on a local port, empty but for the usual namespaces; needs kaito-core[testing]."""
    from kaito_core.testing.cluster import FakeCluster

    with FakeCluster() as cluster:
        yield cluster
