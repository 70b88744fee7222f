"""Error responses: every failure, wherever it happens, becomes OpenAI's error body."""

import logging
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from kaito_runtime.errors import RequestError, validation_message
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.openai.replies import error_body

__all__ = ["error_response", "install_error_handlers"]

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


def _field(location: Sequence[object]) -> str:
    """Returns "messages[0].role" for a pydantic location, without the names of union branches."""
    parts = [part for part in location[1:] if isinstance(part, int) or str(part).isidentifier()]
    named = [part for part in parts if part not in ("str", "list", "constrained")]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).lstrip(".")
