"""How hypothesis runs: quickly by default, longer with HYPOTHESIS_PROFILE=long (`make test-slow`) or =thorough."""

import os

import pytest
from hypothesis import HealthCheck, settings

# No test measures time, and on a busy machine any example may be slow.
settings.register_profile("quick", deadline=None)
for _name, _examples in (("long", 2_000), ("thorough", 10_000)):
    settings.register_profile(
        _name, deadline=None, max_examples=_examples, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts property tests first: a long one takes a minute, and one that started last would be waited for."""
    items.sort(key=lambda item: item.get_closest_marker("property") is None)
