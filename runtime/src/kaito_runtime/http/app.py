"""The HTTP application: middleware, and the routes that generate text. `openai` turns requests into answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response, StreamingResponse
from importlib_metadata import version
from starlette.types import Receive, Scope, Send

from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.engine.protocol import Engine
from kaito_runtime.errors import RequestError, ServeError
from kaito_runtime.http.admin import ADMIN_PATHS, add_admin_routes
from kaito_runtime.http.auth import ApiKey, BodyLimit
from kaito_runtime.http.errors import OWN_HEADERS, RequestIds, install_error_handlers
from kaito_runtime.http.health import Health
from kaito_runtime.http.key_limits import KeyLimits
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.http.page import add_chat_page
from kaito_runtime.http.responses import add_responses_route
from kaito_runtime.http.status import add_status_routes
from kaito_runtime.http.tokens import add_token_routes
from kaito_runtime.http.upstream import UpstreamRequest, answer_upstream, result_body
from kaito_runtime.keys import ApiKeys
from kaito_runtime.openai.codec import TextCodec
from kaito_runtime.openai.replies import Piece, Reply, error_body, sse
from kaito_runtime.openai.requests import ChatRequest, CompletionRequest, GenerationRequest, StreamOptions
from kaito_runtime.openai.service import CompletionService
from kaito_runtime.openai.stream import Answer

__all__ = ["create_app"]

T = TypeVar("T")

# A browser opens the page without a key, so it holds nothing that is not public; the page asks for the key.
_STATUS_PATHS = frozenset({"/v1/adapters", "/metrics"})
_OPEN_PATHS = frozenset({"/", "/health", "/healthz", "/livez", "/readyz"})
_BODY_BYTES = 8 << 20
_GENERATION = "X-Kaito-Generation"

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(
    engine: Engine,
    codec: TextCodec,
    adapters: AdapterManager,
    health: Health,
    *,
    api_keys: ApiKeys | None = None,
    limits: KeyLimits | None = None,
    admin_token: str | None = None,
    open_status: bool = False,
    request_seconds: float | None = None,
    cors_origins: Sequence[str] = (),
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """Returns the application.

    Args:
        adapters: The model ids and their adapters.
        api_keys: Bearer tokens, of which every route but the probes and the chat page requires one; None: none does.
        limits: What each of them may ask for; None for no limits.
        admin_token: Bearer token that the admin routes require; None turns them off.
        open_status: Whether what is applied and metrics can be read without the API key.
        request_seconds: Time limit of a request; None for none.
        cors_origins: Origins of pages that may call the server from a browser.
        lifespan: What starts and stops with the application.
    """
    limits = limits or KeyLimits()
    metrics = Metrics(engine, adapters, api_keys, limits)
    service = CompletionService(engine, codec, adapters, metrics, request_seconds)
    app = FastAPI(title="kaito-runtime", version=version("kaito-runtime"), lifespan=lifespan)
    app.add_middleware(BodyLimit, limit=_BODY_BYTES)
    # Admins have their own token: a user with the API key must not change the answers of others.
    own_keys = {} if admin_token is None else dict.fromkeys(ADMIN_PATHS, admin_token)
    open_paths = _OPEN_PATHS | _STATUS_PATHS if open_status else _OPEN_PATHS
    app.add_middleware(
        ApiKey, keys=api_keys, limits=limits, own_keys=own_keys, open_paths=open_paths, refused=metrics.refused
    )
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[_GENERATION, *OWN_HEADERS],
        )
    app.add_middleware(RequestIds)
    install_error_handlers(app, metrics)
    add_chat_page(app)
    add_generation_routes(app, service, adapters, health)
    add_token_routes(app, codec, engine, adapters)
    add_status_routes(app, engine, adapters, health, metrics)
    add_admin_routes(app, adapters, enabled=admin_token is not None)
    return app


def add_generation_routes(app: FastAPI, service: CompletionService, adapters: AdapterManager, health: Health) -> None:
    """Adds the routes that generate text to `app`."""

    def check_open() -> None:
        if health.draining:
            raise RequestError("the server is stopping", status=503, code="server_stopping", retry_after_seconds=1)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        check_open()
        answer = await service.chat(body)
        reply = service.reply(body, answer.generation)
        return await respond(answer, reply, request, body)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        check_open()
        answer = await service.completion(body)
        reply = service.reply(body, answer.generation)
        return await respond(answer, reply, request, body)

    add_responses_route(app, service, check_open, deliver)

    @app.post("/chat")
    async def upstream_chat(body: UpstreamRequest, request: Request) -> Response:
        check_open()
        answer = await answer_upstream(body, service, adapters.catalog.config.model.name)
        pieces = await until_gone(request, answer.whole, answer.cancel)
        return JSONResponse(result_body(body, pieces[0].text), headers={_GENERATION: str(answer.generation)})


async def respond(answer: Answer, reply: Reply, request: Request, asked: GenerationRequest) -> Response:
    """Returns an answer in one body, or as a stream of events."""

    def whole(pieces: Sequence[Piece]) -> dict[str, Any]:
        prompts = [] if asked.prompt_logprobs is None else [answer.prompt(index) for index in range(len(pieces))]
        return reply.whole(pieces, answer.usage, prompts)

    events = _events(answer, reply, asked.stream_options or StreamOptions()) if asked.stream else None
    return await deliver(request, answer, events, whole)


class _Stream(StreamingResponse):
    """Cancels its answer however the response ends, also before its first event."""

    def __init__(self, answer: Answer, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.cancel()


async def _events(answer: Answer, reply: Reply, options: StreamOptions) -> AsyncIterator[str]:
    try:
        for index in range(answer.choices):
            if opening := reply.opening(index):
                yield sse(opening)
        async with aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                if not piece.empty:
                    running = options.include_usage and options.continuous_usage_stats
                    yield sse(reply.chunk(piece, answer.usage if running else None))
        if options.include_usage:
            yield sse(reply.closing(answer.usage))
    except ServeError as error:  # the status line has been sent: the error becomes an event, as OpenAI does it
        status, code = (error.status, error.code) if isinstance(error, RequestError) else (500, "internal_error")
        yield sse(error_body(str(error), status=status, code=code, param=None))
    yield "data: [DONE]\n\n"


async def deliver(
    request: Request,
    answer: Answer,
    events: AsyncIterator[str] | None,
    whole: Callable[[Sequence[Piece]], dict[str, Any]],
) -> Response:
    """Returns an answer as a stream of events where there are any, else whole."""
    headers = {_GENERATION: str(answer.generation)}
    if events is not None:
        headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return _Stream(answer, events, media_type="text/event-stream", headers=headers)
    pieces = await until_gone(request, answer.whole, answer.cancel)
    return JSONResponse(whole(pieces), headers=headers)


async def until_gone(request: Request, work: Callable[[], Awaitable[T]], cancel: Callable[[], None]) -> T:
    """Returns the result of `work`, which is cancelled as soon as the client disconnects.

    Raises:
        RequestError: The client has disconnected; nobody reads the response.
    """
    working = asyncio.ensure_future(work())
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise RequestError("the client has disconnected", status=499, code="client_gone")
    finally:
        leaving.cancel()
        working.cancel()
        cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
