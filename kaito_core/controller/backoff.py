"""How long to wait before the next attempt, for everything in the operator that tries again."""

__all__ = ["backoff_seconds"]

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 300.0


def backoff_seconds(failures: int, chance: float) -> float:
    """Returns the seconds to wait after a number of failures in a row: doubled each time, 300 at most.

    Args:
        failures: Failures in a row before this one.
        chance: A random number in [0, 1); spreads attempts that failed at the same time over half the wait.
    """
    longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(failures, 30))
    return longest * (0.5 + chance / 2)
