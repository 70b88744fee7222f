"""Errors as OpenAI's clients expect them, whatever went wrong and wherever. Also the optional API key."""

import hmac
import logging
from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaito_runtime.errors import RequestError
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.openai.requests import error_body

__all__ = ["ApiKey", "BodyLimit", "error_response", "install_error_handlers"]

log = logging.getLogger(__name__)

_CODES = {404: "not_found", 405: "method_not_allowed", 401: "invalid_api_key", 413: "request_too_large"}


def error_response(error: RequestError) -> JSONResponse:
    """Returns the answer that a request error stands for."""
    headers = {} if error.retry_after_seconds is None else {"Retry-After": str(error.retry_after_seconds)}
    body = error_body(str(error), status=error.status, code=error.code, param=error.param)
    return JSONResponse(body, error.status, headers)


def install_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Makes every error answer of `app` an OpenAI error body."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> JSONResponse:
        metrics.refused(error.code)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        fault = error.errors()[0]
        field = _field(fault["loc"])
        if fault["type"] == "json_invalid":
            wrong = RequestError(f"the body is no JSON: {fault['ctx']['error']}", code="invalid_json")
        else:
            message = f"{field or 'body'}: {fault['msg'].removeprefix('Value error, ')}"
            wrong = RequestError(message, param=field or None)
        return await refused(request, wrong)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "invalid_request")
        message = f"{request.method} {request.url.path}: {error.detail}"
        response = await refused(request, RequestError(message, status=error.status_code, code=code))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return await refused(request, RequestError("internal error", status=500, code="internal_error"))


def _field(location: Sequence[object]) -> str:
    """Returns "messages[0].role" for a pydantic location, without the names of a union's branches."""
    parts = [part for part in location[1:] if isinstance(part, int) or str(part).isidentifier()]
    named = [part for part in parts if part not in ("str", "list", "constrained")]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).lstrip(".")


class ApiKey:
    """Lets requests pass that carry the key of their path, compared in constant time.

    Args:
        key: Of every path that is not named below; None: they need none.
        own_keys: Paths with a key of their own.
        open_paths: Paths that need no key.
    """

    def __init__(self, app: ASGIApp, key: str | None, own_keys: Mapping[str, str], open_paths: frozenset[str]) -> None:
        self._app = app
        self._key = key
        self._own_keys = own_keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 401, or hands on."""
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
    """Refuses bodies that are too large before they are in memory.

    Args:
        limit: In bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts what arrives, and answers 413 where it is too much."""
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
                # FastAPI hides every other exception that is raised while it reads a body.
                raise HTTPException(413, str(error))
            return message

        await self._app(scope, counted, send)
