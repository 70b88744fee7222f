"""The strength of an adapter: its range, and the only two ways between its text and its number.

A strength is parsed where a document is read (a Workspace, a serving configuration, a request) and is a float from
there on.
"""

import math
import re
from typing import Annotated

from pydantic import BeforeValidator

from kaito_core.api.messages import fault, shown

__all__ = [
    "DEFAULT_STRENGTH",
    "MAX_STRENGTH",
    "MAX_STRENGTH_TEXT",
    "STRENGTH_PATTERN",
    "Strength",
    "is_unusual",
    "parse_strength",
    "strength_text",
]

DEFAULT_STRENGTH = 1.0
MAX_STRENGTH = 10.0  # in magnitude
MAX_STRENGTH_TEXT = 64  # characters
#: What the CRD says of a strength in a string. The pattern holds the range too, so it allows no exponent above zero:
#: telling how large "0.001e3" is takes arithmetic.
STRENGTH_PATTERN = r"^[+-]?(0*10([.]0*)?|0*[0-9]([.][0-9]*)?|[.][0-9]+)([eE]-[0-9]{1,3})?$"
_DECIMAL = re.compile(r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?")


def parse_strength(value: object) -> float:
    """Returns the finite multiplier that a strength in YAML or JSON stands for.

    Args:
        value: A number, or decimal notation in a string.

    Raises:
        ValueError: It is anything else, or its magnitude exceeds `MAX_STRENGTH`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a number or a string with a number, got {shown(value)}")
    if isinstance(value, str) and _DECIMAL.fullmatch(value) is None:
        raise ValueError(f"must be a finite number, got {shown(value)}")
    # Comparing comes before converting: an int may be too large for a float.
    if isinstance(value, int) and abs(value) > MAX_STRENGTH:
        raise ValueError(f"must be between {-MAX_STRENGTH:g} and {MAX_STRENGTH:g}, got {shown(value)}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number, got {shown(value)}")
    if abs(number) > MAX_STRENGTH:
        raise ValueError(f"must be between {-MAX_STRENGTH:g} and {MAX_STRENGTH:g}, got {shown(value)}")
    if isinstance(value, str) and (len(value) > MAX_STRENGTH_TEXT or re.fullmatch(STRENGTH_PATTERN, value) is None):
        raise ValueError(f"must be plain decimal notation such as '0.5' or '5e-1', got {shown(value)}")
    return number + 0.0  # "-0" becomes 0: the sign of a zero would only show up as a difference in bits


def strength_text(strength: float) -> str:
    """Returns the shortest text that `parse_strength` reads back as the same number, such as "1" or "0.12345678"."""
    return repr(strength).removesuffix(".0")


def is_unusual(strength: float) -> bool:
    """Returns whether a strength is outside 0 to 1: upstream refuses it, and kaito applies it as written."""
    return not 0 <= strength <= 1


def _field(value: object) -> float:
    try:
        return parse_strength(value)
    except ValueError as error:
        raise fault(str(error)) from error


#: The strength of an adapter as a field of a document.
Strength = Annotated[float, BeforeValidator(_field)]
