"""The runtime's errors: a class says what its catcher does. The operator's are in `kaito_core.errors`."""

from collections.abc import Mapping
from typing import Any

from kaito_core.api.messages import describe

__all__ = [
    "AdapterLoadError",
    "GroupLostError",
    "ModelLoadError",
    "RequestError",
    "ServeError",
    "is_out_of_memory",
    "one_line",
    "validation_message",
]


class ServeError(Exception):
    """Root of the errors that the runtime raises on purpose."""


class ModelLoadError(ServeError):
    """The base model cannot be served: the process ends with the message."""


class AdapterLoadError(ServeError):
    """One adapter cannot be applied exactly: it becomes Failed, the server goes on.

    Attributes:
        name: The adapter's name.
        reason: What is wrong and with which key or tensor.
        transient: Whether the same files may load later, as when memory is free again.
    """

    def __init__(self, name: str, reason: str, *, transient: bool = False) -> None:
        super().__init__(f"adapter '{name}' cannot be loaded: {reason}")
        self.name = name
        self.reason = reason
        self.transient = transient


class RequestError(ServeError):
    """A request cannot be served: the response has `status` and an OpenAI error body.

    Attributes:
        status: HTTP status code.
        code: Machine-readable code of the OpenAI error body, such as "model_not_found".
        param: The field of the request at fault, or None.
        retry_after_seconds: When the same request may succeed; None: it never will as it is, or nobody knows.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_value",
        param: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.status = status
        self.code = code
        self.param = param


class GroupLostError(ServeError):
    """Another rank is gone or does not reply: no forward pass can be computed, so the process must end."""


def validation_message(error: Mapping[str, Any]) -> str:
    """Returns one of pydantic's errors as what the field must be, such as "must be a whole number, got '2'"."""
    if error["type"] == "value_error":  # of our own validators, which name the value
        return str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "json_invalid":
        return f"invalid JSON: {error['ctx']['error']}"
    if error["type"] == "extra_forbidden":
        return "is not a known field; check the spelling or remove it"
    return describe(error)


def one_line(error: BaseException) -> str:
    """Returns an unexpected error in one line, such as "KeyError: 'x'"; many have no message of their own."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether memory ran out: Python's, or torch's, which has a class of its own for GPUs alone."""
    words = ("out of memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))
