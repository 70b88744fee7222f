"""How hypothesis runs: quickly by default, thoroughly with HYPOTHESIS_PROFILE=thorough (`make test-slow`)."""

import os

import pytest
from hypothesis import HealthCheck, settings

# No test measures time, and on a busy machine any example may be slow.
settings.register_profile("quick", deadline=None)
settings.register_profile("thorough", deadline=None, max_examples=10_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts property tests first: a thorough one takes minutes, and one that started last would be waited for."""
    items.sort(key=lambda item: item.get_closest_marker("property") is None)
