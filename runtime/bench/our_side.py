"""Our side of the benchmark: the server in this process, and clients that ask it over HTTP."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from stopwatch import Run, Stopwatch
from workloads import Request, in_order

from kaito_core.api.serving import ServingConfig
from kaito_runtime.build import build_engine
from kaito_runtime.options import ServeOptions
from kaito_runtime.serve import Server

__all__ = ["ask_all", "first_tokens", "serving"]

_SECONDS = 600


@contextmanager
def serving(model: Path, folders: dict[str, Path], *, pack: bool) -> Iterator[str]:
    """Yields the URL of a server in this process."""
    adapters = [{"name": name, "path": str(folder)} for name, folder in folders.items()]
    config = ServingConfig.model_validate({"model": {"name": "m", "dtype": "float32"}, "adapters": adapters})
    options = ServeOptions(model=model, port=0, pack_weights=pack)
    server = Server(*build_engine(config, options), config, options)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not (server.started and server.health.warm):
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.should_exit = True
        thread.join()


def ask_all(url: str, clients: Sequence[Sequence[Request]]) -> Run:
    """Runs all clients, each of which sends a request when the one before is answered. Texts are in `in_order`."""

    async def all_clients() -> Run:
        async with httpx.AsyncClient(base_url=url, timeout=_SECONDS) as http:

            async def one_client(requests: Sequence[Request]) -> list[str]:
                return [_text(await http.post("/v1/completions", json=_body(request))) for request in requests]

            watch = Stopwatch()
            texts = await asyncio.gather(*map(one_client, clients))
            return watch.stop([text for of_turn in zip(*texts, strict=True) for text in of_turn])

    return asyncio.run(all_clients())


async def first_tokens(url: str, clients: Sequence[Sequence[Request]]) -> list[float]:
    """Returns the seconds to each request's first text, sorted. Clients start evenly over the time of one answer."""
    waits: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=_SECONDS) as http:

        async def ask(request: Request) -> float:
            started = time.perf_counter()
            async with http.stream("POST", "/v1/completions", json=_body(request, stream=True)) as response:
                texts = [
                    time.perf_counter() - started
                    async for line in response.aiter_lines()
                    if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["text"]
                ]
            waits.append(texts[0])
            return time.perf_counter() - started

        async def one_client(index: int) -> None:
            await asyncio.sleep(index * alone / len(clients))
            for request in clients[index]:
                await ask(request)

        alone = await ask(in_order(clients)[0])
        waits.clear()
        await asyncio.gather(*map(one_client, range(len(clients))))
    return sorted(waits)


def _body(request: Request, **more: Any) -> dict[str, Any]:
    listed = [{"name": name, "strength": strength} for name, strength in request.strengths.items()]
    wanted = {"max_tokens": request.tokens, "temperature": 0, "ignore_eos": True}
    return {"model": "m", "prompt": request.prompt, "adapters": listed, **wanted, **more}


def _text(answer: httpx.Response) -> str:
    return str(answer.raise_for_status().json()["choices"][0]["text"])
