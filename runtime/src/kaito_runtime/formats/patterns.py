"""How long a regular expression of an adapter could take, before it is tried on the names of a model's modules.

Python's `re` has no time limit and stops the whole process while it matches, so one adapter could stop the server.
"""

import math
import re
import re._parser as parser  # type: ignore[import-not-found]
from collections.abc import Iterable
from typing import Any

__all__ = ["is_bounded"]

# Ways to match a name. Four open repetitions and some alternatives are fewer, which is more than tools write.
MOST_WAYS = 2e8
NAME_LENGTH = 64


def is_bounded(pattern: str) -> bool:
    """Whether a pattern is done with a name in a few seconds at worst; true of one that is no regular expression."""
    try:
        return _ways(parser.parse(pattern)) <= MOST_WAYS
    except re.error:
        return True  # `re` says what is wrong with it
    except (OverflowError, RecursionError):
        return False


def _ways(sequence: Iterable[tuple[Any, Any]]) -> float:
    """An estimate from above of how many ways there are to match a name."""
    return math.prod((_ways_of(str(kind), value) for kind, value in sequence), start=1.0)


def _ways_of(kind: str, value: Any) -> float:
    match kind:
        case "BRANCH":
            if all(str(each) == "LITERAL" for branch in value[1] for each, _ in branch):
                return 2.0  # of words that differ, hardly ever do two match at a place
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
