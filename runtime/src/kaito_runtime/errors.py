"""The runtime's error tree. A class says what its catcher does; the operator's tree is `kaito_core.errors`."""

__all__ = ["AdapterLoadError", "GroupLostError", "ModelLoadError", "RequestError", "ServeError"]


class ServeError(Exception):
    """Root of what the runtime raises on purpose."""


class ModelLoadError(ServeError):
    """The base model cannot be served: the process must end with a message."""


class AdapterLoadError(ServeError):
    """One adapter cannot be applied exactly: it is Failed, the server stays up.

    Attributes:
        name: The adapter's name.
        reason: What is wrong and with which key or tensor.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"adapter '{name}' cannot be loaded: {reason}")
        self.name = name
        self.reason = reason


class RequestError(ServeError):
    """A request cannot be served; answered with `status` and an OpenAI error body.

    Attributes:
        status: HTTP status code.
        code: Machine-readable code of the OpenAI error body, such as "model_not_found".
        param: The field of the request at fault, or None.
        retry_after_seconds: When the same request may succeed, or None.
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
    """Another rank is gone or does not answer: no pass can be computed any more, the process must end."""
