"""The operator is killed between any two writes to a real API server: tests of tests/integration/operator."""

import pytest

from integration.operator.test_crash import (
    test_a_process_killed_in_the_middle_of_its_writes_is_succeeded,
    test_an_operator_killed_between_any_two_writes_leaves_no_trace,
    test_deletion_at_every_stage_ends,
)
from scenarios.stories import STORIES, Story

__all__ = [
    "test_a_process_killed_in_the_middle_of_its_writes_is_succeeded",
    "test_an_operator_killed_between_any_two_writes_leaves_no_trace",
    "test_deletion_at_every_stage_ends",
]

#: Those with all kinds of writes; the other takes a minute and a half to die at each of its own.
_STORIES = [story for story in STORIES if story.title != "prepared nodes"]


@pytest.fixture(params=_STORIES, ids=lambda story: story.title)
def story(request: pytest.FixtureRequest) -> Story:
    """Each of these lives in turn."""
    found: Story = request.param
    return found


pytestmark = pytest.mark.usefixtures("controllers")
