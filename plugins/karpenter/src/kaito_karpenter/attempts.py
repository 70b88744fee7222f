"""When NodeClaims are created again after failures, and the record of those failures. Pure functions.

Karpenter deletes a NodeClaim if it cannot get a machine. That wakes the operator, which without a wait would create the
next one within a second. The record is kept in the Workspace's status, so that it survives restarts.
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
    """Returns the wait after consecutive failures: doubled for each, at most 10 minutes, minus up to half at random.

    Args:
        failures: Number of failures, at least 1.
        identity: Seed of the random part, so that Workspaces that failed together do not try again together.
    """
    longest = min(LONGEST_WAIT, FIRST_WAIT * (1 << min(failures - 1, 10)))
    chance = int.from_bytes(hashlib.sha256(f"{identity}/{failures}".encode()).digest()[:4]) / 2**32
    return longest * (1 - chance / 2)


@dataclass(frozen=True, slots=True)
class Attempts:
    """The record of the NodeClaims of one Workspace.

    Attributes:
        form: Identifies what was requested. The record of another request is discarded.
        failures: Consecutive times that claims were deleted before they were ready.
        next_at: When claims are created again; None before the first failure.
        pending: Names of the claims that were not ready at the last pass.
        seen: What the first of them was waiting for.
        failure: The reason of the last failure.
    """

    form: str
    failures: int = 0
    next_at: datetime | None = None
    pending: tuple[str, ...] = ()
    seen: str = ""
    failure: str = ""

    @classmethod
    def read(cls, notes: Mapping[str, str], form: str, now: datetime) -> "Attempts":
        """Returns the record that `notes` wrote, or an empty one if it was edited or is of another form."""
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
        """Returns the record as strings for the status; empty if no claim is pending and none has failed."""
        if not self.failures and not self.pending:
            return {}
        notes = {"form": self.form, "pending": ",".join(self.pending), "seen": self.seen, "failure": self.failure}
        if self.next_at is not None:
            notes |= {"failures": str(self.failures), "nextAttempt": timestamp(self.next_at)}
        return {key: value for key, value in notes.items() if value}

    def must_wait(self, now: datetime) -> bool:
        """Returns whether it is too early to create claims again."""
        return self.next_at is not None and now < self.next_at

    def lost(self, kept: Iterable[str]) -> bool:
        """Returns whether a claim that was pending is gone; `kept` are the names of those that exist."""
        return not set(self.pending) <= set(kept)

    def failed(self, words: str, now: datetime, identity: str) -> "Attempts":
        """Returns the record with one more failure.

        Args:
            words: The reason; "" takes the last status of the claims.
            now: When it was noticed.
            identity: The Workspace's, see `wait`.
        """
        failures = self.failures + 1
        # Rounded up: the record has whole seconds.
        next_at = (now + wait(failures, identity)).replace(microsecond=0) + timedelta(seconds=1)
        failure = _short(words or self.seen)
        return Attempts(self.form, failures, next_at.astimezone(UTC), failure=failure)

    def refused(self, words: str) -> "Attempts":
        """Returns the record with a reason of the last failure that has become known; "" changes nothing."""
        return replace(self, failure=_short(words)) if words else self

    def observed(self, pending: Mapping[str, str]) -> "Attempts":
        """Returns the record with the claims that are not ready: by name, what each waits for."""
        seen = next((words for words in pending.values() if words), "")
        return replace(self, pending=tuple(pending), seen=_short(seen))


def _short(words: str) -> str:
    return words if len(words) <= _LONGEST_WORDS else f"{words[: _LONGEST_WORDS - 3]}..."
