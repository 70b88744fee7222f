"""Failing requests and breaking watches on a real API server: tests of tests/integration/operator."""

import pytest

from integration.operator.test_faults import (
    test_a_lasting_refusal_is_reported,
    test_a_late_adapter_that_cannot_be_pulled_is_reported,
    test_a_lease_is_judged_by_what_is_seen_of_it_not_by_its_date,
    test_conditions_of_others_are_kept,
    test_disturbances_of_the_api_do_not_change_the_end_state,
    test_it_waits_for_an_api_that_is_not_there_yet,
    test_it_writes_nothing_twice,
    test_many_at_once,
    test_watches_that_are_refused_are_opened_again,
    test_watches_that_break_lose_nothing,
    test_what_is_deleted_while_watches_are_broken_is_noticed,
)

__all__ = [
    "test_a_lasting_refusal_is_reported",
    "test_a_late_adapter_that_cannot_be_pulled_is_reported",
    "test_a_lease_is_judged_by_what_is_seen_of_it_not_by_its_date",
    "test_conditions_of_others_are_kept",
    "test_disturbances_of_the_api_do_not_change_the_end_state",
    "test_it_waits_for_an_api_that_is_not_there_yet",
    "test_it_writes_nothing_twice",
    "test_many_at_once",
    "test_watches_that_are_refused_are_opened_again",
    "test_watches_that_break_lose_nothing",
    "test_what_is_deleted_while_watches_are_broken_is_noticed",
]

pytestmark = pytest.mark.usefixtures("controllers")
