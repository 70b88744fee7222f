"""The life of a rank that follows: its part of the model, probes where it has a pod of its own, and the end.

Kubernetes probes every pod, and only the first has a server. The other pods answer the probes and send everybody else
there.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from kaito_runtime.openai.requests import error_body

if TYPE_CHECKING:
    pass

__all__ = ["answering_probes", "create_probes"]

log = logging.getLogger(__name__)


def create_probes(where: str) -> FastAPI:
    """Returns the application of a rank that does not serve.

    Args:
        where: Says who serves.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/health")
    @app.get("/healthz")
    @app.get("/livez")
    @app.get("/readyz")
    async def well() -> Response:
        # A rank that is not well does not answer: it ends, and all others with it.
        return PlainTextResponse("ok")

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
    async def elsewhere(path: str, request: Request) -> Response:
        return JSONResponse(error_body(where, status=503, code="not_the_first_rank", param=None), 503)

    return app


@contextmanager
def answering_probes(bound: socket.socket | None, where: str) -> Iterator[None]:
    """Answers probes in a thread until the block ends; without a socket, this rank's node has a server already."""
    if bound is None:
        yield
        return
    config = uvicorn.Config(create_probes(where), log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    # A daemon: the process ends with its rank, whoever is connected.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="probes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(2.0)
