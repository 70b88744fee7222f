"""Middleware that runs before a request is handled: bearer tokens, and the size limit of bodies."""

import hmac
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaito_runtime.errors import RequestError
from kaito_runtime.http.errors import error_response

__all__ = ["ApiKey", "BodyLimit"]


class ApiKey:
    """Refuses requests without the bearer token of their path; tokens are compared in constant time.

    Args:
        key: Token of every path that is not in the other two; None: those paths need none.
        own_keys: Tokens of paths that have their own.
        open_paths: Paths that need no token.
    """

    def __init__(self, app: ASGIApp, key: str | None, own_keys: Mapping[str, str], open_paths: frozenset[str]) -> None:
        self._app = app
        self._key = key
        self._own_keys = own_keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Responds with 401, or passes the request on."""
        path = scope.get("path", "")
        key = self._own_keys.get(path, None if path in self._open_paths else self._key)
        if scope["type"] == "http" and key is not None:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, f"Bearer {key}".encode()):
                what = "admin token" if path in self._own_keys else "API key"
                error = RequestError(f"the {what} is missing or wrong", status=401, code="invalid_api_key")
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses large bodies before they are in memory.

    Args:
        limit: Largest body, in bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts the bytes of the body, and responds with 413 above the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        error = RequestError(f"the body is larger than {self._limit} bytes", status=413, code="request_too_large")
        if declared.isdigit() and int(declared) > self._limit:
            await error_response(error)(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                # FastAPI turns every other exception that is raised while it reads a body into its own 400.
                raise HTTPException(413, str(error))
            return message

        await self._app(scope, counted, send)
