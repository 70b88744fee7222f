"""The HTTP API: routes over an engine. What a route does with a request is `answers`' business."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from importlib.metadata import version
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from kaito_runtime.adapters.manager import Residents
from kaito_runtime.engine.protocol import Engine, TextCodec
from kaito_runtime.errors import RequestError, ServeError
from kaito_runtime.http.admin import ADMIN_PATHS, add_admin_routes
from kaito_runtime.http.errors import ApiKey, BodyLimit, install_error_handlers
from kaito_runtime.http.health import Health
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.http.page import add_chat_page
from kaito_runtime.http.plugins import plugins_body
from kaito_runtime.http.upstream import UpstreamRequest, result_body, to_answer
from kaito_runtime.openai.requests import ChatRequest, CompletionRequest, Reply, error_body, model_body, sse
from kaito_runtime.openai.service import Answers
from kaito_runtime.openai.stream import Answer

__all__ = ["create_app"]

log = logging.getLogger(__name__)
T = TypeVar("T")

# The page holds nothing that is not public, and a browser has no key to open it with: it asks for one.
_OPEN_PATHS = frozenset({"/", "/health", "/healthz", "/livez", "/readyz"})
_BODY_BYTES = 8 << 20

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(
    engine: Engine,
    codec: TextCodec,
    residents: Residents,
    health: Health,
    *,
    api_key: str | None = None,
    admin_token: str | None = None,
    request_seconds: float | None = None,
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """Returns the application.

    Args:
        residents: Knows the model ids and their adapters.
        api_key: Required as bearer token on every route but the probes and the chat page, if given.
        admin_token: Required as bearer token on the admin routes, which are off without.
        request_seconds: Longest time that a request may take, if limited.
        lifespan: What starts and stops around it.
    """
    metrics = Metrics(engine, residents)
    answers = Answers(engine, codec, residents, metrics, request_seconds)
    started = int(time.time())
    app = FastAPI(title="kaito-runtime", version=version("kaito-runtime"), lifespan=lifespan)
    app.add_middleware(BodyLimit, limit=_BODY_BYTES)
    # Admins have a token of their own: whoever may ask the model must not change what others are answered with.
    own = {} if admin_token is None else dict.fromkeys(ADMIN_PATHS, admin_token)
    app.add_middleware(ApiKey, key=api_key, own_keys=own, open_paths=_OPEN_PATHS)
    install_error_handlers(app, metrics)
    add_chat_page(app)
    add_admin_routes(app, residents, enabled=admin_token is not None)

    def check_open() -> None:
        if health.draining:
            raise RequestError("the server is stopping", status=503, code="server_stopping", retry_after_seconds=1)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        check_open()
        answer = await answers.chat(body)
        reply = Reply(chat=True, model=body.model, text_of=answers.text_of if body.logprobs else None)
        return await respond(answer, reply, request, stream=bool(body.stream), usage=body.wants_usage)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        check_open()
        answer = await answers.completion(body)
        text_of = None if body.logprobs is None else answers.text_of
        reply = Reply(chat=False, model=body.model, text_of=text_of)
        return await respond(answer, reply, request, stream=bool(body.stream), usage=body.wants_usage)

    @app.post("/chat")
    async def upstream_chat(body: UpstreamRequest, request: Request) -> Response:
        check_open()
        answer = await to_answer(body, answers, residents.catalog.config.model.name)
        pieces = await until_gone(request, answer.whole, answer.cancel)
        return JSONResponse(result_body(body, pieces[0].text))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        cards = residents.catalog.servable()
        return {"object": "list", "data": [model_body(card, started, engine.context_length) for card in cards]}

    @app.get("/v1/models/{model_id:path}")
    async def model(model_id: str) -> dict[str, Any]:
        return model_body(residents.catalog.card(model_id), started, engine.context_length)

    @app.get("/v1/adapters")
    async def adapters() -> dict[str, Any]:
        return adapters_body(residents)

    @app.get("/health")
    @app.get("/readyz")
    async def ready() -> Response:
        return probe(health.why_not_ready())

    @app.get("/healthz")
    @app.get("/livez")
    async def alive() -> Response:
        return probe(health.why_dead())

    @app.get("/version")
    async def versions() -> dict[str, str]:
        return {"version": version("kaito-runtime")}

    @app.get("/v1/plugins")
    def plugins() -> dict[str, Any]:
        return plugins_body()

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def adapters_body(residents: Residents) -> dict[str, Any]:
    """Returns what is applied: the operator reads it before it says so in a status."""
    config = residents.catalog.config
    data = []
    for adapter in config.adapters:
        status = residents.catalog.status(adapter.name)
        data.append(
            {
                "name": adapter.name,
                "digest": None if status.version is None else status.version.digest,
                "strength": adapter.strength,
                "state": str(status.state),
                "message": status.message,
            }
        )
    return {
        "object": "list",
        "generation": config.generation,
        "model": config.model.name,
        "error": residents.config_error,
        "data": data,
        # Apart from what the operator compares with its Workspace.
        "loaded_by_request": [guest_body(residents, name) for name in residents.catalog.guests],
    }


def guest_body(residents: Residents, name: str) -> dict[str, Any]:
    """Returns an adapter that an admin loaded."""
    status = residents.catalog.status(name)
    digest = None if status.version is None else status.version.digest
    return {"name": name, "digest": digest, "strength": residents.catalog.declared[name], "state": str(status.state)}


def probe(trouble: str) -> Response:
    """Returns a probe's answer."""
    return PlainTextResponse(trouble or "ok", 503 if trouble else 200)


async def respond(answer: Answer, reply: Reply, request: Request, *, stream: bool, usage: bool) -> Response:
    """Returns an answer whole, or as the events of a stream."""
    if stream:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return _Stream(answer, _events(answer, reply, usage=usage), media_type="text/event-stream", headers=headers)
    pieces = await until_gone(request, answer.whole, answer.cancel)
    return JSONResponse(reply.whole(pieces, answer.usage))


class _Stream(StreamingResponse):
    """Cancels its answer however it ends, also before its first event."""

    def __init__(self, answer: Answer, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.cancel()


async def _events(answer: Answer, reply: Reply, *, usage: bool) -> AsyncIterator[str]:
    try:
        for index in range(answer.choices):
            if opening := reply.opening(index):
                yield sse(opening)
        async with aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                if piece.text or piece.tokens or piece.finish:
                    yield sse(reply.chunk(piece))
        if usage:
            yield sse(reply.closing(answer.usage))
    except ServeError as error:  # the status line is gone: the error is an event, as OpenAI does it
        status, code = (error.status, error.code) if isinstance(error, RequestError) else (500, "internal_error")
        yield sse(error_body(str(error), status=status, code=code, param=None))
    yield "data: [DONE]\n\n"


async def until_gone(request: Request, work: Callable[[], Awaitable[T]], cancel: Callable[[], None]) -> T:
    """Returns the result of `work`, which is ended as soon as the client has gone.

    Raises:
        RequestError: The client has gone; nobody reads it.
    """
    working = asyncio.ensure_future(work())
    leaving = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise RequestError("the client has gone", status=499, code="client_gone")
    finally:
        leaving.cancel()
        working.cancel()
        cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
