"""When claims are made again after some that came to nothing, and what is remembered of those. Pure functions.

Karpenter deletes a claim that it can make no machine for, which wakes the operator at once: without a wait it would ask
again within the second. What is remembered is in the Workspace's status, so that a restart forgets nothing.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from kaito_core.api.conditions import timestamp

__all__ = ["LONGEST_WAIT", "Attempts", "wait"]

FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=30), timedelta(minutes=10)
_LONGEST_WORDS = 400  # characters; some clouds write pages


def wait(failures: int, identity: str) -> timedelta:
    """Returns how long to wait after failures in a row: doubled each time, 10 minutes at most, less up to a half.

    Args:
        failures: How many, one or more.
        identity: Of whom; spreads those that failed together, the same each time.
    """
    longest = min(LONGEST_WAIT, FIRST_WAIT * (1 << min(failures - 1, 10)))
    chance = int.from_bytes(hashlib.sha256(f"{identity}/{failures}".encode()).digest()[:4]) / 2**32
    return longest * (1 - chance / 2)


@dataclass(frozen=True, slots=True)
class Attempts:
    """What is remembered of the claims of one Workspace.

    Attributes:
        form: Stands for what was asked for; for anything else all begins anew.
        failures: How often in a row claims went away before they were ready.
        next_at: When claims are made again; None before the first failure.
        pending: Names of the claims that were not ready when they were last seen.
        seen: What the first of them was waiting for then.
        failure: What was said of those that failed last.
    """

    form: str
    failures: int = 0
    next_at: datetime | None = None
    pending: tuple[str, ...] = ()
    seen: str = ""
    failure: str = ""

    @classmethod
    def read(cls, notes: Mapping[str, str], form: str, now: datetime) -> "Attempts":
        """Returns what `notes` wrote; what somebody has spoilt since, or was written of another form, is forgotten."""
        if notes.get("form") != form:
            return cls(form)
        try:
            failures = int(notes.get("failures", "0"))
            text = notes.get("nextAttempt")
            next_at = None if text is None else datetime.fromisoformat(text)
            if failures < 0 or (failures == 0) != (next_at is None):
                return cls(form)
            if next_at is not None and next_at - now > LONGEST_WAIT + timedelta(minutes=1):
                return cls(form)
        except (ValueError, TypeError):  # TypeError: a time without a zone
            return cls(form)
        pending = tuple(filter(None, notes.get("pending", "").split(",")))
        return cls(form, failures, next_at, pending, notes.get("seen", ""), notes.get("failure", ""))

    def notes(self) -> dict[str, str]:
        """Returns what to keep; nothing where nothing is pending and nothing has failed."""
        if not self.failures and not self.pending:
            return {}
        notes = {"form": self.form, "pending": ",".join(self.pending), "seen": self.seen, "failure": self.failure}
        if self.next_at is not None:
            notes |= {"failures": str(self.failures), "nextAttempt": timestamp(self.next_at)}
        return {key: value for key, value in notes.items() if value}

    def must_wait(self, now: datetime) -> bool:
        """Returns whether it is too early to make claims."""
        return self.next_at is not None and now < self.next_at

    def lost(self, kept: Iterable[str]) -> bool:
        """Returns whether a claim that was pending is not among those that are kept."""
        return not set(self.pending) <= set(kept)

    def failed(self, words: str, now: datetime, identity: str) -> "Attempts":
        """Returns the attempts with another failure.

        Args:
            words: What was said of it, "" where only the claims themselves had said something.
            now: When it was noticed.
            identity: Of the Workspace, see `wait`.
        """
        failures = self.failures + 1
        # Whole seconds are written, and not to be early.
        next_at = (now + wait(failures, identity)).replace(microsecond=0) + timedelta(seconds=1)
        failure = _short(words or self.seen)
        return Attempts(self.form, failures, next_at.astimezone(UTC), failure=failure)

    def refused(self, words: str) -> "Attempts":
        """Returns the attempts with what has been said of the last failure since; "" is nothing."""
        return replace(self, failure=_short(words)) if words else self

    def observed(self, pending: Mapping[str, str]) -> "Attempts":
        """Returns the attempts with the claims that are not ready, by name, each with what it waits for."""
        seen = next((words for words in pending.values() if words), "")
        return replace(self, pending=tuple(pending), seen=_short(seen))


def _short(words: str) -> str:
    return words if len(words) <= _LONGEST_WORDS else f"{words[: _LONGEST_WORDS - 3]}..."
