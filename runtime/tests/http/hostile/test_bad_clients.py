"""Clients that behave badly below HTTP: the server must serve the others, and keep nothing of theirs."""

import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from live import Live, serving, until

from kaito_core.api.serving import ServedModel, ServingConfig

GOOD = {"model": "tiny", "prompt": "a", "max_tokens": 2}


@pytest.fixture(scope="module")
def live(tiny_llama: Path) -> Iterator[Live]:
    with serving(tiny_llama, ServingConfig(model=ServedModel(name="tiny"))) as server:
        yield server


@pytest.fixture
def wire(live: Live) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", live.server.port), timeout=30) as connection:
        yield connection


def request(**more: object) -> bytes:
    body = json.dumps({**GOOD, **more}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def unharmed(live: Live) -> None:
    assert live.post("/v1/completions", GOOD).status_code == 200
    stats = live.engine.stats
    until(lambda: stats().running == stats().waiting == 0 and stats().cache_use == 0, "nothing is left running")
    assert stats().failures == 0


def test_body_that_never_comes(live: Live, wire: socket.socket) -> None:
    wire.sendall(request()[:-5])
    unharmed(live)
    wire.close()
    unharmed(live)


def test_body_that_comes_byte_by_byte(live: Live, wire: socket.socket) -> None:
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in request():
        wire.sendall(bytes([byte]))
    assert wire.recv(12) == b"HTTP/1.1 200"
    unharmed(live)


def test_client_that_closes_its_half_and_asked_for_much(live: Live, wire: socket.socket) -> None:
    wire.sendall(request(max_tokens=200, n=8, ignore_eos=True))
    wire.shutdown(socket.SHUT_WR)
    unharmed(live)


def test_client_that_asks_for_a_stream_and_resets_the_connection(live: Live, wire: socket.socket) -> None:
    wire.sendall(request(max_tokens=200, n=8, stream=True, ignore_eos=True))
    assert wire.recv(12) == b"HTTP/1.1 200"
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.close()
    unharmed(live)


def test_client_that_does_not_read_its_stream(live: Live, wire: socket.socket) -> None:
    wire.sendall(request(max_tokens=200, n=16, stream=True, ignore_eos=True))
    unharmed(live)


@pytest.mark.parametrize("garbage", [b"\0" * 64, b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\0"])
def test_bytes_that_are_not_http_harm_nobody(live: Live, wire: socket.socket, garbage: bytes) -> None:
    wire.sendall(garbage + b"\r\n\r\n")
    wire.shutdown(socket.SHUT_WR)
    assert b" 200 " not in wire.recv(64)
    unharmed(live)


def test_two_body_lengths_are_refused(live: Live, wire: socket.socket) -> None:
    """Two readings of where a request ends are how requests are smuggled past a gateway."""
    wire.sendall(request().replace(b"Host: x", b"Host: x\r\nContent-Length: 3"))
    assert b" 400 " in wire.recv(64)
    unharmed(live)


STREAMS = {
    "/v1/completions": {"prompt": "a", "max_tokens": 60},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 60},
    "/v1/responses": {"input": "a", "max_output_tokens": 60},
}


def misbehave(live: Live, random: Random) -> None:
    """Asks for a stream and then reads slowly, closes half, stops reading, resets or just goes, wherever that falls."""
    path = random.choice(list(STREAMS))
    body = json.dumps({"model": "tiny", "stream": True, **STREAMS[path]}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    sent = head.encode() + body
    with socket.create_connection(("127.0.0.1", live.server.port), timeout=30) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, random.choice((1024, 65536)))
        connection.sendall(sent[: random.choice((len(sent), len(sent), random.randrange(len(sent))))])
        if random.random() < 0.3:
            connection.shutdown(socket.SHUT_WR)
        connection.settimeout(0.2)
        with suppress(OSError):
            for _ in range(random.randrange(6)):
                if not connection.recv(random.choice((1, 100, 4000))):
                    break
        if random.random() < 0.3:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("clients", [24, pytest.param(1500, marks=pytest.mark.slow)])
def test_streams_whose_readers_come_and_go_leave_nothing(live: Live, clients: int) -> None:
    unharmed(live)
    files = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: misbehave(live, Random(seed)), range(clients)))
    unharmed(live)
    until(lambda: len(os.listdir("/proc/self/fd")) <= files, "every connection is closed")
