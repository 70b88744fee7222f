"""POST /v1/responses: the newer of OpenAI's routes, for conversations that the client keeps."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import Response as HttpResponse

from kaito_runtime.errors import RequestError, ServeError
from kaito_runtime.openai.replies import Piece
from kaito_runtime.openai.response_events import Response
from kaito_runtime.openai.responses import ResponsesRequest
from kaito_runtime.openai.service import CompletionService
from kaito_runtime.openai.stream import Answer

__all__ = ["Deliver", "add_responses_route"]


class Deliver(Protocol):
    """Sends an answer as a stream of events, or whole once it is complete."""

    def __call__(
        self,
        request: Request,
        answer: Answer,
        events: AsyncIterator[str] | None,
        whole: Callable[[Sequence[Piece]], dict[str, Any]],
    ) -> Awaitable[HttpResponse]:
        """Returns the response."""


def add_responses_route(
    app: FastAPI, service: CompletionService, check_open: Callable[[], None], deliver: Deliver
) -> None:
    """Adds the route to `app`.

    Args:
        check_open: Raises where the server takes no more requests.
        deliver: Sends the answer.
    """

    @app.post("/v1/responses")
    async def responses(body: ResponsesRequest, request: Request) -> HttpResponse:
        check_open()
        answer = await service.chat(body.as_chat())
        response = Response(body)

        def whole(pieces: Sequence[Piece]) -> dict[str, Any]:
            for _ in (*response.push(pieces[0]), *response.closing(pieces[0].finish, answer.usage)):
                pass
            return response.body

        events = _events(answer, response) if body.stream else None
        return await deliver(request, answer, events, whole)

    for method, end in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        app.add_api_route(f"/v1/responses/{{response_id}}{end}", _not_stored, methods=[method], include_in_schema=False)


async def _not_stored(response_id: str) -> None:
    message = f"no response '{response_id[:100]}': nothing is stored here"
    raise RequestError(message, status=404, code="not_found")


async def _events(answer: Answer, response: Response) -> AsyncIterator[str]:
    for event in response.opening():
        yield _sse(event)
    finish = None
    try:
        async with aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                finish = piece.finish or finish
                for event in response.push(piece):
                    yield _sse(event)
        ending = response.closing(finish, answer.usage)
    except ServeError as error:  # the status line has been sent
        ending = response.failing(str(error), error.code if isinstance(error, RequestError) else "internal_error")
    for event in ending:
        yield _sse(event)


def _sse(event: dict[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n"
