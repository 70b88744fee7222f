"""Two operators at once on a real API server: tests of tests/integration/operator."""

import pytest

from integration.operator.test_leader import (
    test_a_leader_that_cannot_renew_ends_before_another_begins,
    test_a_leader_that_stood_still_past_its_lease_writes_nothing_more,
    test_one_that_stands_by_can_be_stopped,
    test_the_one_that_stands_by_takes_over,
)

__all__ = [
    "test_a_leader_that_cannot_renew_ends_before_another_begins",
    "test_a_leader_that_stood_still_past_its_lease_writes_nothing_more",
    "test_one_that_stands_by_can_be_stopped",
    "test_the_one_that_stands_by_takes_over",
]

pytestmark = pytest.mark.usefixtures("controllers")
