"""The life of a server process: it loads, serves, drains and ends."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from types import FrameType

import uvicorn
from fastapi import FastAPI

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.build import build_engine, build_model
from kaito_runtime.config import ConfigFile
from kaito_runtime.engine.protocol import Engine, Job, Sampling
from kaito_runtime.engine.torch_engine import TorchEngine
from kaito_runtime.errors import RequestError, ServeError, one_line
from kaito_runtime.http.app import create_app
from kaito_runtime.http.follower_probes import serving_probes
from kaito_runtime.http.health import Health
from kaito_runtime.http.key_limits import KeyLimits
from kaito_runtime.http.sockets import bind
from kaito_runtime.openai.codec import TextCodec
from kaito_runtime.options import Ranks, ServeOptions
from kaito_runtime.ranks.follow import ARRIVAL_SECONDS, Follower
from kaito_runtime.ranks.group import Group, join

__all__ = ["Server", "serve"]

log = logging.getLogger(__name__)

_SELF_TEST_SECONDS = 5.0


class Server(uvicorn.Server):
    """A uvicorn server that finishes running requests before it ends, and refuses new ones with 503 meanwhile.

    Args:
        engine: Started and stopped with the server.
        config: What to serve at the start.
        config_file: Applied again whenever it changes; None: the configuration stays.

    Attributes:
        asked_to_end: Whether a signal came.
        failure: Why it ended without a signal, or "".
    """

    def __init__(
        self,
        engine: TorchEngine,
        codec: TextCodec,
        config: ServingConfig,
        options: ServeOptions,
        config_file: ConfigFile | None = None,
    ) -> None:
        self._engine = engine
        self._options = options
        self._deadline: float | None = None
        self._listening = asyncio.Event()
        self.asked_to_end = False
        self.failure = ""
        self._adapters = AdapterManager(engine, config, adapters_dir=options.adapters_dir, config_file=config_file)
        self.health = Health(engine, self._adapters)
        app = create_app(
            engine,
            codec,
            self._adapters,
            self.health,
            api_keys=options.api_keys,
            limits=KeyLimits(options.key_requests, options.key_tokens),
            admin_token=options.admin_token,
            open_status=options.open_status,
            request_seconds=options.request_seconds,
            cors_origins=options.cors_origins,
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
        """Port that it listens on; where options.port is 0, the system has chosen it."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen."""
        await super().startup(sockets)
        self._listening.set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Starts to drain at the first signal; ends at once at the second."""
        if self.health.draining:
            self.should_exit = self.force_exit = True
        self.health.draining = self.asked_to_end = True

    async def on_tick(self, counter: int) -> bool:
        """Returns whether it is time to end; uvicorn calls it ten times a second."""
        if await super().on_tick(counter):
            return True
        if failure := self.health.why_dead():
            self.failure = failure
            log.error("ending: %s", failure)
            return True
        self.health.draining = self.health.draining or self._engine.leaving
        if not self.health.draining:
            return False
        if self._deadline is None:
            self._deadline = time.monotonic() + self._options.drain_seconds
            log.info("stopping: running requests may finish within %g s", self._options.drain_seconds)
        stats = self._engine.stats()
        return stats.running + stats.waiting == 0 or time.monotonic() > self._deadline

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        self._engine.start()
        background = asyncio.create_task(self._prepare_and_watch())
        background.add_done_callback(self._note_end)
        try:
            yield
        finally:
            background.cancel()
            await asyncio.wait([background])
            await self._engine.stop()

    def _note_end(self, background: asyncio.Task[None]) -> None:
        """Ends the process: without its background task, the server would never change again, without a reason."""
        if background.cancelled() or (error := background.exception()) is None:
            return
        log.error("the background task that loads adapters and tests the model has ended", exc_info=error)
        self.health.failure = (
            f"the background task that loads adapters and tests the model has ended: {one_line(error)}"
        )

    async def _prepare_and_watch(self) -> None:
        await self._adapters.refresh()
        await self._self_test()
        await self._listening.wait()
        log.info("ready: http://%s:%d", self._options.host, self.port)
        await asyncio.gather(self._adapters.watch(), self._watch_health())

    async def _watch_health(self) -> None:
        """Tests the model while the server is not ready: without requests, nothing else shows that it works again."""
        while True:
            await asyncio.sleep(_SELF_TEST_SECONDS)
            if self.health.why_not_ready() and not (self.health.draining or self.health.why_dead()):
                await self._self_test()

    async def _self_test(self) -> None:
        try:
            await first_answer(self._engine)
        except ServeError as error:
            log.error("the model's self-test failed: %s", error)
            # A full queue is no fault of the model.
            if not (isinstance(error, RequestError) and error.code == "rate_limit_exceeded"):
                self.health.failed_self_tests.append(str(error))
        else:
            self.health.failed_self_tests.clear()
            self.health.warm = True


async def first_answer(engine: Engine) -> None:
    """Computes a prompt and a second token, so that clients do not wait for what is slow the first time.

    Raises:
        ServeError: The engine failed.
    """
    stream = engine.submit(Job([0], 2, sampling=Sampling(temperature=0)))
    async for _ in stream:
        pass


def serve(config: ServingConfig, options: ServeOptions, config_file: ConfigFile | None = None) -> None:
    """Serves until a signal comes; on every rank but rank 0, follows rank 0.

    Args:
        config: What to serve at the start.
        config_file: Applied again whenever it changes; None: the configuration stays.

    Raises:
        ServeError: It cannot start, or cannot go on.
    """
    ranks = Ranks.from_env(os.environ)
    if ranks.size > 1:
        # Ranks wait for one another inside libraries, where a Python signal handler does not run.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if not ranks.leads:
        follow(config, options, join(ranks, os.environ))
        return
    with bind(options.host, options.port) as bound:
        engine, codec = build_engine(config, options, join(ranks, os.environ) if ranks.size > 1 else None)
        server = Server(engine, codec, config, options, config_file)
        server.run(sockets=[bound])
    if failure := server.failure or engine.lost:
        raise ServeError(failure)
    if engine.leaving and not server.asked_to_end:  # an error, so that this node's ranks start again
        raise ServeError("another node ends: the ranks of this node end too, to start again together")


def follow(config: ServingConfig, options: ServeOptions, group: Group) -> None:
    """Follows rank 0 until it ends.

    Raises:
        ServeError: This rank cannot start, or the others are gone.
    """
    ranks = group.ranks
    own_pod = ranks.node > 0 and ranks.local_rank == 0
    with bind(options.host, options.port) if own_pod else nullcontext() as bound:
        built = build_model(config, options, group)
        follower = Follower(
            built.loaded.model,
            built.lora,
            built.limits,
            group,
            adapters_dir=options.adapters_dir,
            arrival_seconds=ARRIVAL_SECONDS if ranks.nodes > 1 else 0.0,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, follower.leave)
        log.info("%s of %d follows rank 0", ranks, ranks.size)
        where = f"this is rank {ranks.rank} of {ranks.size}; rank 0 serves, on {os.environ.get('MASTER_ADDR')}"
        with serving_probes(bound, where):
            follower.run()
