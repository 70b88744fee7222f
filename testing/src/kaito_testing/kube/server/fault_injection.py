"""Failures that a test injects, and the log of requests in which it counts writes. No HTTP here."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from kaito_testing.kube.errors import ApiError

__all__ = ["Fault", "Manner", "RequestRecord", "next_fault"]

#: How a request fails: "error" answers with an error; "hang" neither serves it nor answers; "cut" serves it, and breaks
#: the connection in the middle of the answer.
Manner = Literal["error", "hang", "cut"]

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A request in the log.

    Attributes:
        manager: The field manager that it names, or the client's name.
        status: HTTP status of the answer, 0 if there was none.
        at_seconds: When it was answered, on the clock of `time.perf_counter`.
    """

    method: str
    path: str
    query: dict[str, str]
    manager: str
    status: int
    body: Any = None
    at_seconds: float = field(default_factory=time.perf_counter, compare=False)

    @property
    def is_write(self) -> bool:
        """Whether it asks for a change; a dry run does not."""
        return self.method in WRITES and self.query.get("dryRun") != "All"


@dataclass(slots=True)
class Fault:
    """The next matching requests fail.

    Attributes:
        method: HTTP method, "" for any; "WATCH" for watches, "WRITE" for all that ask for a change.
        path: Regular expression that is searched in the path.
        status: HTTP status of the answer, if `manner` is "error".
        times: How many more requests fail.
        message: Message of the Status.
        retry_after_seconds: Sent as Retry-After if above 0.
        after: How many requests are served first.
        manner: How the requests fail.
    """

    method: str
    path: str
    status: int
    times: int = 1
    message: str = "injected by the test"
    retry_after_seconds: int = 0
    after: int = 0
    manner: Manner = "error"
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        self.pattern = re.compile(self.path)

    def error(self) -> ApiError:
        """The error that is answered."""
        details = {"retryAfterSeconds": self.retry_after_seconds} if self.retry_after_seconds else None
        return ApiError(self.status, _REASONS.get(self.status, "Unknown"), self.message, details)


def next_fault(faults: list[Fault], method: str, path: str, *, watch: bool) -> Fault | None:
    """The fault for a request, counted down; None if the request is to be served."""
    for fault in faults:
        kinds = ("", method, "WATCH" if watch else "WRITE" if method in WRITES else method)
        if fault.method in kinds and fault.times > 0 and fault.pattern.search(path):
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.times -= 1
            return fault
    return None
