"""Probes of pods whose ranks only follow.

Kubernetes probes every pod of a model that several pods share, and only the first pod serves. The others answer the
probes, and refuse every other request with the name of the node that serves.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from kaito_runtime.openai.replies import error_body

__all__ = ["create_probes", "serving_probes"]


def create_probes(where: str) -> FastAPI:
    """Returns the application of a rank that does not serve.

    Args:
        where: Message of every refusal: which rank serves, and where.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/health")
    @app.get("/healthz")
    @app.get("/livez")
    @app.get("/readyz")
    async def well() -> Response:
        # A rank that fails ends its process, and with it all others: one that responds works.
        return PlainTextResponse("ok")

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
    async def elsewhere(path: str, request: Request) -> Response:
        return JSONResponse(error_body(where, status=503, code="not_the_first_rank", param=None), 503)

    return app


@contextmanager
def serving_probes(bound: socket.socket | None, where: str) -> Iterator[None]:
    """Serves probes in a thread until the block ends.

    Args:
        bound: The socket to listen on; None: another rank of this node answers them.
        where: See `create_probes`.
    """
    if bound is None:
        yield
        return
    config = uvicorn.Config(create_probes(where), log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    # A daemon: open connections must not keep the process from ending.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="probes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(2.0)
