"""Strengths as text and as numbers: what is written can be read back."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kaito_core.api.strength import MAX_STRENGTH, is_unusual, parse_strength, strength_text


@given(st.floats(-MAX_STRENGTH, MAX_STRENGTH))
@example(0.12345678)
@example(5e-324)
@example(-9.999999999999998)
def test_the_text_of_a_strength_is_read_back_as_the_same_number(strength: float) -> None:
    assert parse_strength(strength_text(strength)) == strength


@pytest.mark.parametrize(
    ("strength", "text"), [(1.0, "1"), (0.0, "0"), (-0.25, "-0.25"), (0.1, "0.1"), (0.12345678, "0.12345678")]
)
def test_the_text_is_the_shortest(strength: float, text: str) -> None:
    assert strength_text(strength) == text


@pytest.mark.parametrize(("strength", "unusual"), [(0, False), (1, False), (-0.001, True), (1.001, True)])
def test_strengths_that_upstream_refuses_are_unusual(strength: float, unusual: bool) -> None:
    assert is_unusual(strength) is unusual
