"""The faults of docs/how-to/troubleshoot.md on a real API server: the page holds what the operator says there too."""

import pytest

from integration.operator.test_troubles import (
    test_the_page_says_what_the_operator_says,
)

__all__ = [
    "test_the_page_says_what_the_operator_says",
]

pytestmark = pytest.mark.usefixtures("controllers")
