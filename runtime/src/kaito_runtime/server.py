"""Putting the parts of one server together, and its life: load, serve, drain, end."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI

from kaito_core.api.serving import ServingConfig
from kaito_runtime.app import create_app
from kaito_runtime.batching import BatchLimits, cache_bytes_per_token
from kaito_runtime.engine import Engine, Job, Sampling, TextCodec
from kaito_runtime.errors import ServeError
from kaito_runtime.health import Health
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.models import load_model
from kaito_runtime.residents import Residents
from kaito_runtime.torch_engine import TorchEngine

__all__ = ["ServeOptions", "Server", "bind", "build_engine", "serve"]

log = logging.getLogger(__name__)

_GIB = 1 << 30
_CPU_CACHE_GIB = 1.0
_GPU_CACHE_SHARE = 0.85  # of what is free after the weights
_SELF_TEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line decides, as opposed to the configuration file.

    Attributes:
        model: Folder or GGUF file.
        config_file: Watched, if given.
        cache_gib: Size of the key-value cache; None chooses one.
        step_tokens: Most tokens of one forward pass.
        batch_requests: Most requests of one forward pass.
        max_waiting: Most requests that wait; more get 429.
        drain_seconds: How long requests may run on after SIGTERM.
        request_seconds: Longest time that a request may take, waiting included; None for no limit.
        pack_weights: Keep a second, packed copy of large weights on a CPU, for faster batches.
    """

    model: Path
    host: str = "127.0.0.1"
    port: int = 5000
    adapters_dir: Path | None = None
    config_file: Path | None = None
    api_key: str | None = None
    cache_gib: float | None = None
    step_tokens: int = 512
    batch_requests: int = 64
    max_waiting: int = 256
    drain_seconds: float = 30.0
    pack_weights: bool = False
    request_seconds: float | None = None


def build_engine(config: ServingConfig, options: ServeOptions) -> tuple[TorchEngine, TextCodec]:
    """Loads the model and makes an engine of it.

    Raises:
        ModelLoadError: The model cannot be served.
    """
    started = time.monotonic()
    loaded = load_model(options.model, recipe=config.model.recipe, dtype=config.model.dtype)
    context = min(config.model.context_length or loaded.context_length, loaded.context_length)
    lora = inject_lora(loaded.model, exclude=loaded.recipe.lora_exclude, pack=options.pack_weights)
    per_token = cache_bytes_per_token(loaded.model)
    room = (
        options.cache_gib * _GIB if options.cache_gib else _default_cache_bytes(next(loaded.model.parameters()).device)
    )
    limits = BatchLimits(
        cache_tokens=int(min(room // per_token, context * options.batch_requests)),
        step_tokens=options.step_tokens,
        requests=options.batch_requests,
    )
    engine = TorchEngine(
        loaded.model,
        lora,
        end_tokens=loaded.end_tokens,
        context_length=context,
        limits=limits,
        max_waiting=options.max_waiting,
    )
    log.info(
        "model ready in %.1f s: recipe '%s', context %d tokens, cache %d tokens (%.2f GiB)",
        time.monotonic() - started,
        loaded.recipe.name,
        engine.context_length,
        limits.cache_tokens,
        limits.cache_tokens * per_token / _GIB,
    )
    return engine, loaded.codec


def _default_cache_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] * _GPU_CACHE_SHARE
    return _CPU_CACHE_GIB * _GIB


class Server(uvicorn.Server):
    """A uvicorn server that finishes what runs before it ends, and refuses the rest with 503.

    Args:
        engine: Started and stopped with the server.
        config: What to serve at first.
    """

    def __init__(self, engine: TorchEngine, codec: TextCodec, config: ServingConfig, options: ServeOptions) -> None:
        self._engine = engine
        self._options = options
        self._deadline: float | None = None
        self._listening = asyncio.Event()
        self._residents = Residents(engine, config, adapters_dir=options.adapters_dir, config_file=options.config_file)
        self.health = Health(engine, self._residents)
        app = create_app(
            engine,
            codec,
            self._residents,
            self.health,
            api_key=options.api_key,
            request_seconds=options.request_seconds,
            lifespan=self._lifespan,
        )
        super().__init__(
            uvicorn.Config(
                app,
                host=options.host,
                port=options.port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=max(1, int(options.drain_seconds)),
            )
        )

    @property
    def port(self) -> int:
        """Port that it listens on, which the system chose where 0 was asked for."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen."""
        await super().startup(sockets)
        self._listening.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts to drain at the first signal; ends at once at the second."""
        if self.health.draining:
            self.should_exit = self.force_exit = True
        self.health.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Says whether it is time to end; uvicorn asks ten times a second."""
        if await super().on_tick(counter):
            return True
        if not self.health.draining:
            return False
        if self._deadline is None:
            self._deadline = time.monotonic() + self._options.drain_seconds
            log.info("stopping: finishing what runs, for at most %g s", self._options.drain_seconds)
        stats = self._engine.stats()
        return stats.running + stats.waiting == 0 or time.monotonic() > self._deadline

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self._engine.start()
        background = asyncio.create_task(self._prepare_and_watch())
        try:
            yield
        finally:
            background.cancel()
            with suppress(asyncio.CancelledError):
                await background
            await self._engine.stop()

    async def _prepare_and_watch(self) -> None:
        await self._residents.refresh()
        await self._self_test()
        await self._listening.wait()
        log.info("ready: http://%s:%d", self._options.host, self.port)
        await asyncio.gather(self._residents.watch(), self._watch_health())

    async def _watch_health(self) -> None:
        """Without requests nothing would show that the model works again."""
        while True:
            await asyncio.sleep(_SELF_TEST_SECONDS)
            if self.health.why_not_ready() and not self.health.draining and self._engine.alive:
                await self._self_test()

    async def _self_test(self) -> None:
        try:
            await first_answer(self._engine)
        except ServeError as error:
            log.error("the model's self-test failed: %s", error)
        else:
            self.health.warm = True


async def first_answer(engine: Engine) -> None:
    """Runs a prompt and a step through the engine: what is slow the first time is over then.

    Raises:
        ServeError: The engine failed.
    """
    stream = engine.submit(Job([0], 2, sampling=Sampling(temperature=0)))
    async for _ in stream:
        pass


def bind(host: str, port: int) -> socket.socket:
    """Returns a socket that has its address but does not listen yet: a port that is taken shows before the model loads.

    Raises:
        ServeError: The address cannot be had.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ServeError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return bound


def serve(config: ServingConfig, options: ServeOptions) -> None:
    """Serves until a signal comes.

    Raises:
        ServeError: It cannot start.
    """
    with bind(options.host, options.port) as bound:
        engine, codec = build_engine(config, options)
        Server(engine, codec, config, options).run(sockets=[bound])
