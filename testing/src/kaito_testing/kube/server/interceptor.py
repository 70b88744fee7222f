"""What every request to an API passes, emulated or behind a proxy: the log, and the failures that tests inject."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import yaml
from aiohttp import web

from kaito_testing.kube import errors
from kaito_testing.kube.errors import ApiError
from kaito_testing.kube.server.fault_injection import Fault, RequestRecord, next_fault
from kaito_testing.kube.server.watches import Watches, is_true

__all__ = ["TEST_CLIENT", "ApiRequest", "Interceptor", "Serve"]

_log = logging.getLogger(__name__)

TEST_CLIENT = "kaito-testing"  #: User-Agent whose requests are neither logged nor failed


class ApiRequest:
    """A request with its body read.

    Attributes:
        raw: The request itself.
        query: Its parameters; of a repeated one the last.
        agent: Name of the client.
        body: The decoded body, None without one.
    """

    def __init__(self, raw: web.BaseRequest, log: list[RequestRecord]) -> None:
        self.raw, self.query = raw, dict(raw.query)
        self.agent = raw.headers.get("User-Agent", "unknown").split("/")[0]
        self.body: Any = None
        self._log = None if self.agent == TEST_CLIENT else log

    @property
    def is_watch(self) -> bool:
        """Whether it opens a watch."""
        return self.raw.method == "GET" and is_true(self.query, "watch")

    def record(self, status: int) -> None:
        """Adds the request to the log, the first time that it is called.

        Args:
            status: HTTP status of the answer, 0 if there was none.
        """
        if self._log is not None:
            manager = self.query.get("fieldManager", self.agent)
            record = RequestRecord(self.raw.method, self.raw.path, self.query, manager, status, self.body)
            self._log.append(record)
            self._log = None


Serve = Callable[[ApiRequest], Awaitable[web.StreamResponse]]


class Interceptor:
    """Logs the requests to one API and fails those that a test wants to fail.

    Attributes:
        faults: What is to fail, in order.
        log: The requests so far.
        watches: The open watch streams.
        closing: Set when the API stops.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.log: list[RequestRecord] = []
        self.watches = Watches()
        self.closing = asyncio.Event()

    async def answer(self, raw: web.BaseRequest, serve: Serve) -> web.StreamResponse:
        """Passes a request to `serve`, or fails it. Errors become the Status bodies of the API."""
        request = ApiRequest(raw, self.log)
        fault: Fault | None = None
        try:
            request.body = _decode(await raw.read(), raw.content_type)
            if request.agent != TEST_CLIENT:
                fault = next_fault(self.faults, raw.method, raw.path, watch=request.is_watch)
            if fault is not None and fault.manner == "hang":
                request.record(0)
                await self.closing.wait()
            if fault is not None and fault.manner != "cut":
                raise fault.error()
            response = await serve(request)
        except ApiError as error:
            response = web.json_response(error.to_status(), status=error.code)
            if error.details and "retryAfterSeconds" in error.details:
                response.headers["Retry-After"] = str(error.details["retryAfterSeconds"])
        except Exception as error:  # a server answers 500 and goes on; the test finds the reason in the log
            _log.exception("%s %s", raw.method, raw.path)
            response = web.json_response(ApiError(500, "InternalError", repr(error)).to_status(), status=500)
        request.record(response.status)
        if fault is not None and fault.manner == "cut" and isinstance(response, web.Response):
            return await _cut(raw, response)
        return response

    def close(self) -> None:
        """Ends the requests that hang and the open watches."""
        self.closing.set()
        self.watches.end("drop")


async def _cut(request: web.BaseRequest, answer: web.Response) -> web.StreamResponse:
    """Sends half of an answer and aborts the connection."""
    whole = answer.body if isinstance(answer.body, bytes) else b""
    half = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
    half.content_length = len(whole)
    await half.prepare(request)
    await half.write(whole[: len(whole) // 2])
    if request.transport is not None:
        request.transport.abort()
    return half


def _decode(raw: bytes, content_type: str) -> Any:
    if not raw:
        return None
    if "protobuf" in content_type:
        raise errors.unsupported_media_type(("application/json", "application/yaml"))
    try:
        return json.loads(raw)
    except ValueError:
        pass
    try:
        return yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise errors.bad_request(f"the body is neither JSON nor YAML: {error}") from error
