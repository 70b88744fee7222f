"""Middleware that runs before a request is handled: bearer tokens, and the size limit of bodies."""

import hmac
from collections.abc import Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaito_runtime.errors import RequestError
from kaito_runtime.http.errors import error_response
from kaito_runtime.http.key_limits import CURRENT_KEY, KeyLimits
from kaito_runtime.keys import ApiKeys

__all__ = ["ApiKey", "BodyLimit"]


class ApiKey:
    """Refuses requests without a bearer token of their path; tokens are compared in constant time.

    Args:
        keys: Tokens of every path that is not in the other two; None: those paths need none.
        limits: What each of them may ask for; counted are requests that send a body.
        refused: Told the code of each refusal.
        own_keys: Tokens of paths that have their own.
        open_paths: Paths that need no token.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: ApiKeys | None,
        limits: KeyLimits,
        own_keys: Mapping[str, str],
        open_paths: frozenset[str],
        refused: Callable[[str], None],
    ) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits
        self._refused = refused
        self._own_keys = own_keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Responds with 401 or 429, or passes the request on."""
        try:
            name = self._name_of_key(scope) if scope["type"] == "http" else ""
        except RequestError as error:
            self._refused(error.code)
            await error_response(error)(scope, receive, send)
            return
        token = CURRENT_KEY.set(name)
        try:
            await self._app(scope, receive, send)
        finally:
            CURRENT_KEY.reset(token)

    def _name_of_key(self, scope: Scope) -> str:
        """Returns the name of the key of a request that may be served; "" where its path needs none."""
        path = scope.get("path", "")
        given = dict(scope["headers"]).get(b"authorization", b"")
        if (own := self._own_keys.get(path)) is not None:
            if not hmac.compare_digest(given, f"Bearer {own}".encode()):
                raise _unauthorized("admin token")
            return ""
        if path in self._open_paths or self._keys is None:
            return ""
        name = self._keys.name_of(given)
        if name is None:
            raise _unauthorized("API key")
        if scope["method"] == "POST":
            self._limits.check(name)
        return name


def _unauthorized(what: str) -> RequestError:
    return RequestError(f"the {what} is missing or wrong", status=401, code="invalid_api_key")


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
