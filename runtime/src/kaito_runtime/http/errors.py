"""Error responses: every failure, wherever it happens, becomes OpenAI's error body; and OpenAI's headers."""

import logging
import re
import time
import uuid
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaito_runtime.errors import RequestError, validation_message
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.openai.replies import error_body

__all__ = ["OWN_HEADERS", "RequestIds", "error_response", "install_error_handlers"]

OWN_HEADERS = ("x-request-id", "openai-processing-ms")
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")

log = logging.getLogger(__name__)

_CODES = {404: "not_found", 405: "method_not_allowed", 401: "invalid_api_key", 413: "request_too_large"}


def error_response(error: RequestError) -> JSONResponse:
    """Returns the response for a request error."""
    headers = {} if error.retry_after_seconds is None else {"Retry-After": str(error.retry_after_seconds)}
    body = error_body(str(error), status=error.status, code=error.code, param=error.param)
    return JSONResponse(body, error.status, headers)


def install_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    """Makes every error response of `app` an OpenAI error body, and counts it."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> JSONResponse:
        metrics.refused(error.code)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        fault = error.errors()[0]
        field = _field(fault["loc"])
        if fault["type"] == "json_invalid":
            wrong = RequestError(f"the body is not valid JSON: {fault['ctx']['error']}", code="invalid_json")
        else:
            wrong = RequestError(f"{field or 'the body'} {validation_message(fault)}", param=field or None)
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


class RequestIds:
    """Adds to each response the id of its request, the client's own or a new one, and how long it took to begin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}".encode()
        started = time.monotonic()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent = str(int((time.monotonic() - started) * 1000)).encode()
                own = [(b"x-request-id", request_id), (b"openai-processing-ms", spent)]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _field(location: Sequence[object]) -> str:
    """Returns "messages[0].role" for a pydantic location, without the names of union branches."""
    parts = [part for part in location[1:] if isinstance(part, int) or str(part).isidentifier()]
    named = [part for part in parts if part not in ("str", "list", "constrained")]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).lstrip(".")
