"""What every request goes through on its way to an API, emulated or real: the log, and the failures that tests want."""

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
from kaito_testing.kube.server.faults import Fault, RequestRecord, take
from kaito_testing.kube.server.watches import Watches, is_true

__all__ = ["TEST_CLIENT", "Asked", "Gate", "Serve"]

_log = logging.getLogger(__name__)

TEST_CLIENT = "kaito-testing"  #: User-Agent whose requests are neither logged nor failed


class Asked:
    """A request, read.

    Attributes:
        raw: As it came.
        query: Its query, without what is there twice.
        agent: The client's name.
        body: Its body, decoded; None where there is none.
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

    def note(self, status: int) -> None:
        """Keeps it in the log, once, with the status that it was answered with; 0: it was not."""
        if self._log is not None:
            manager = self.query.get("fieldManager", self.agent)
            record = RequestRecord(self.raw.method, self.raw.path, self.query, manager, status, self.body)
            self._log.append(record)
            self._log = None


Serve = Callable[[Asked], Awaitable[web.StreamResponse]]


class Gate:
    """The requests to one API: what was asked, what is to fail, and which watches are open."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.log: list[RequestRecord] = []
        self.watches = Watches()
        self.closing = asyncio.Event()

    async def answer(self, request: web.BaseRequest, serve: Serve) -> web.StreamResponse:
        """Lets a request through to `serve`, or fails it; errors are answered as the API does."""
        asked = Asked(request, self.log)
        fault: Fault | None = None
        try:
            asked.body = _decode(await request.read(), request.content_type)
            if asked.agent != TEST_CLIENT:
                fault = take(self.faults, request.method, request.path, watch=asked.is_watch)
            if fault is not None and fault.manner == "hang":
                asked.note(0)
                await self.closing.wait()
            if fault is not None and fault.manner != "cut":
                raise fault.error()
            response = await serve(asked)
        except ApiError as error:
            response = web.json_response(error.to_status(), status=error.code)
            if error.details and "retryAfterSeconds" in error.details:
                response.headers["Retry-After"] = str(error.details["retryAfterSeconds"])
        except Exception as error:  # a server answers 500 and lives; the test sees why in the log and in the answer
            _log.exception("%s %s", request.method, request.path)
            response = web.json_response(ApiError(500, "InternalError", repr(error)).to_status(), status=500)
        asked.note(response.status)
        if fault is not None and fault.manner == "cut" and isinstance(response, web.Response):
            return await _cut(request, response)
        return response

    def close(self) -> None:
        """Ends what would never end."""
        self.closing.set()
        self.watches.end("drop")


async def _cut(request: web.BaseRequest, answer: web.Response) -> web.StreamResponse:
    """Sends half of an answer and ends the connection."""
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
