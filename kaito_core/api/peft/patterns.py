"""Bounds the time of an adapter's regular expressions before they are matched against the names of a model's modules.

Python's `re` has no time limit and blocks the whole process while it matches, so one adapter could stop the server.
"""

import math
import re
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterable
from typing import Any

__all__ = ["is_bounded"]

# Most ways to match a name. Four open repetitions and some alternatives, more than any tool writes, stay below.
MOST_WAYS = 2e8
NAME_LENGTH = 64


def is_bounded(pattern: str) -> bool:
    """Returns whether a pattern matches a name in a few seconds at worst. True for what is not a regular expression."""
    try:
        return _ways(parser.parse(pattern)) <= MOST_WAYS
    except re.error:
        return True  # `re` itself will say what is wrong with it
    except (OverflowError, RecursionError):
        return False


def _ways(sequence: Iterable[tuple[Any, Any]]) -> float:
    """Returns an upper estimate of the number of ways to match a name."""
    return math.prod((_ways_of(str(kind), value) for kind, value in sequence), start=1.0)


def _ways_of(kind: str, value: Any) -> float:
    match kind:
        case "BRANCH":
            if all(str(each) == "LITERAL" for branch in value[1] for each, _ in branch):
                return 2.0  # of different words, hardly ever do two match at one place
            return sum(_ways(branch) for branch in value[1])
        case "SUBPATTERN":
            return _ways(value[3])
        case "ATOMIC_GROUP":
            return _ways(value)
        case "ASSERT" | "ASSERT_NOT":
            return _ways(value[1])
        case "GROUPREF_EXISTS":
            return _ways(value[1]) + _ways(value[2] or ())
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, body = value
            once = _ways(body)
            if least == most:
                return float(once ** min(least, NAME_LENGTH))
            if most == 1:
                return 1.0 + once
            return math.inf if once > 1 else float(min(most - least + 1, NAME_LENGTH))
    return 1.0
