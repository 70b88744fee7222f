"""Conditions: transition times, and what is written."""

from datetime import UTC, datetime, timedelta, timezone

from kaito_core.api.conditions import Condition, merge_conditions, timestamp

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def test_times_are_written_in_utc_whatever_the_clock_says() -> None:
    assert timestamp(NOON.astimezone(timezone(timedelta(hours=2)))) == "2024-01-01T12:00:00Z"


def test_the_transition_time_changes_with_the_status_only() -> None:
    first = merge_conditions([], [Condition("Ready", "Unknown", "A", "x")], generation=1, now=NOON)
    reworded = merge_conditions(first, [Condition("Ready", "Unknown", "B", "y")], generation=2, now=LATER)
    turned = merge_conditions(reworded, [Condition("Ready", "True", "B", "y")], generation=2, now=LATER)
    assert [c["lastTransitionTime"] for c in (*first, *reworded, *turned)] == [
        "2024-01-01T12:00:00Z",
        "2024-01-01T12:00:00Z",
        "2024-01-01T13:00:00Z",
    ]
    assert (reworded[0]["reason"], reworded[0]["message"], reworded[0]["observedGeneration"]) == ("B", "y", 2)


def test_a_condition_without_a_time_gets_one() -> None:
    old = [{"type": "Ready", "status": "True"}]
    (merged,) = merge_conditions(old, [Condition("Ready", "True", "A")], generation=1, now=NOON)
    assert merged["lastTransitionTime"] == "2024-01-01T12:00:00Z"


def test_conditions_of_others_are_left_to_them() -> None:
    old = [{"type": "TheirOwn", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]
    merged = merge_conditions(old, [Condition("Ready", "True", "A")], generation=1, now=NOON)
    assert [condition["type"] for condition in merged] == ["Ready"]


def test_long_messages_are_cut() -> None:
    assert len(Condition("Ready", "True", "A", "x" * 5000).to_dict()["message"]) == 1024
