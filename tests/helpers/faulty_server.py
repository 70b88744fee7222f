"""A web server on this machine that serves files with ranges, and misbehaves as it is told."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Fault:
    """How one answer goes wrong.

    Attributes:
        status: Status of an answer without content; 0 for none.
        cut: Bytes of the content after which the connection ends; None: after all.
        extra: Added to the length that is announced.
        ranges: Whether ranges are honoured.
        location: Where the client is sent instead.
        headers: Further headers.
    """

    status: int = 0
    cut: int | None = None
    extra: int = 0
    ranges: bool = True
    location: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """What is served.

    Attributes:
        files: Content by path.
        faults: Faults of the next answers, one each; an honest answer comes when there are none.
        asked: The requests: path with query, and headers.
        etag: Whether files have a strong ETag.
        answer: Answers before the files do, "" to pass: a function of the handler.
    """

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    etag: bool = True
    answer: Callable[[BaseHTTPRequestHandler], bool] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(site: Site | None = None) -> Iterator[Site]:
    """Serves a site until the block is left."""
    site = site or Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with suppress(ConnectionError):  # the client hangs up in the middle
                super().handle()

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            site.asked.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
            if site.answer is None or not site.answer(self):
                _answer(self, site, site.faults.pop(0) if site.faults else Fault())

        do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, content: bytes = b"", **headers: str) -> bool:
    """Sends a whole answer, and returns True."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)
    return True


def _answer(handler: BaseHTTPRequestHandler, site: Site, fault: Fault) -> None:
    if fault.location:
        reply(handler, 302, Location=fault.location)
        return
    if fault.status:
        reply(handler, fault.status, b"no", **dict(fault.headers))
        return
    content = site.files.get(unquote(urlsplit(handler.path).path))
    if content is None:
        reply(handler, 404)
        return
    etag = f'"{hash(content)}"'
    start, wanted = 0, handler.headers.get("Range", "")
    same = handler.headers.get("If-Range", etag) == etag
    if wanted.startswith("bytes=") and fault.ranges and same:
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        if start >= len(content):
            reply(handler, 416)
            return
    body = content[start:]
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    if site.etag:
        handler.send_header("ETag", etag)
    handler.send_header("Content-Length", str(len(body) + fault.extra))
    handler.end_headers()
    handler.wfile.write(body[: fault.cut])
    if fault.cut is not None or fault.extra:
        handler.wfile.flush()
        handler.close_connection = True
