"""Property tests that are worth more examples than a quick run has time for."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

__all__ = ["property_test"]


def property_test(*, examples: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator for a test with `@given`, which `make test-slow` and `make test-thorough` run again.

    Args:
        examples: How many examples there are at least; the profile may ask for more.
    """

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        # Not before: the profile is loaded by the conftest.
        wanted = max(examples, settings.default.max_examples)
        return pytest.mark.property(settings(max_examples=wanted)(test))

    return decorate
