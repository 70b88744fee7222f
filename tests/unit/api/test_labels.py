"""Label selectors: the operators, and what counts as no selector."""

from typing import Any

import pytest

from kaito_core.api import matches


@pytest.mark.parametrize(
    ("operator", "values", "present", "absent"),
    [
        ("In", ["x", "y"], True, False),
        ("In", ["y"], False, False),
        ("NotIn", ["x"], False, True),
        ("NotIn", ["y"], True, True),
        ("Exists", None, True, False),
        ("DoesNotExist", None, False, True),
    ],
)
def test_operators(operator: str, values: list[str] | None, present: bool, absent: bool) -> None:
    selector = {"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}
    assert matches(selector, {"k": "x"}) is present
    assert matches(selector, {}) is absent


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        (None, {"k": "x"}, False),
        ({}, {"k": "x"}, True),
        ({"matchLabels": None, "matchExpressions": None}, {}, True),
        ({"matchLabels": {"k": "x"}}, {"k": "x", "other": "y"}, True),
        ({"matchLabels": {"k": "x"}}, {"k": "y"}, False),
        ({"matchLabels": {"k": ""}}, {}, False),
        (
            {"matchLabels": {"k": "x"}, "matchExpressions": [{"key": "k", "operator": "DoesNotExist"}]},
            {"k": "x"},
            False,
        ),
    ],
)
def test_every_requirement_must_hold(selector: Any, labels: dict[str, str], expected: bool) -> None:
    assert matches(selector, labels) is expected


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="must be In, NotIn, Exists or DoesNotExist, got 'Resembles'"):
        matches({"matchExpressions": [{"key": "k", "operator": "Resembles"}]}, {})
