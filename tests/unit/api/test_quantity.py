"""Kubernetes quantities."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaito_core.api.quantity import format_gib, parse_bytes, parse_gib, parse_quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", "1"),
        (2, "2"),
        (0.5, "0.5"),
        ("500m", "0.5"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("50Gi", "53687091200"),
        ("1E", "1e18"),
        ("1Ei", "1152921504606846976"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("12e-1", "1.2"),
        (".5", "0.5"),
        ("5.", "5"),
        ("-1", "-1"),
        ("+3n", "3e-9"),
    ],
)
def test_parses(text: str | int | float, number: str) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Gi",
        "1gi",
        "1 Gi",
        "1K",
        "1e",
        "1e3Ki",
        "1e3k",
        "0x1",
        "1Gi\nx",
        "nan",
        "inf",
        "١",
        "1e999",
        "--1",
        "1.2.3",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="must be a Kubernetes quantity such as 1, 500m or 50Gi, got"):
        parse_quantity(text)


@pytest.mark.parametrize(("gib", "text"), [(16.0, "16Gi"), (1.5, "1536Mi"), (0.3, "308Mi"), (0.0001, "1Mi")])
def test_formats_and_never_rounds_down(gib: float, text: str) -> None:
    assert format_gib(gib) == text


@given(st.floats(min_value=0.01, max_value=1e5))
def test_what_is_formatted_holds_what_was_asked_for(gib: float) -> None:
    assert 0 <= parse_gib(format_gib(gib)) - gib < 1 / 1024 + 1e-9


@pytest.mark.parametrize(("text", "size"), [("2Gi", 2 << 30), (" 500Mi", 500 << 20), ("1.5", 3 << 29), ("2k", 2000)])
def test_sizes_are_quantities_or_gib(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "0Gi", "-1Gi", "much", "1.2.3", "inf", "100m"])
def test_what_is_no_size_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(ValueError, match=f"must be a size such as 2Gi or 500Mi, or a number of GiB, got '{text}'"):
        parse_bytes(text)
