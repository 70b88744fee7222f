"""Made-up failures, and the log of requests in which tests count writes. No HTTP here."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from kaito_testing.kube.errors import ApiError

__all__ = ["Fault", "Manner", "RequestRecord", "take"]

#: How a request fails: it is answered by an error; it is not served, and nothing answers; or it is served, and the
#: connection dies in the middle of the answer.
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
    """A request that was answered.

    Attributes:
        manager: Field manager that it named, or the client's name.
        status: HTTP status of the answer.
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
        """Whether it meant to change something."""
        return self.method in WRITES and self.query.get("dryRun") != "All"


@dataclass(slots=True)
class Fault:
    """Answers the next matching requests in place of the API.

    Attributes:
        method: HTTP method, "" for any; "WATCH" for watches, "WRITE" for all that mean to change something.
        path: Regular expression that the path contains.
        status: HTTP status to answer.
        times: How many requests still to fail.
        after: How many requests are served first.
        retry_after_seconds: Sent as Retry-After where above 0.
        manner: How the requests fail; `status` is of those that are answered by an error.
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
        """The error to answer."""
        details = {"retryAfterSeconds": self.retry_after_seconds} if self.retry_after_seconds else None
        return ApiError(self.status, _REASONS.get(self.status, "Unknown"), self.message, details)


def take(faults: list[Fault], method: str, path: str, *, watch: bool) -> Fault | None:
    """The fault that this request meets, counted down; None where it is served."""
    for fault in faults:
        kinds = ("", method, "WATCH" if watch else "WRITE" if method in WRITES else method)
        if fault.method in kinds and fault.times > 0 and fault.pattern.search(path):
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.times -= 1
            return fault
    return None
