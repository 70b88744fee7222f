"""TorchEngine: the engine over transformers. One thread owns the runner (model, adapters and batch); the event loop's
thread sends it work, and delivers tokens.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from kaito_runtime.engine.device import why_lost
from kaito_runtime.engine.live_jobs import Event, LiveJob, LiveJobs
from kaito_runtime.engine.protocol import NO_DEFAULTS, EngineStats, Job, Sampling, TokenStream
from kaito_runtime.engine.runner import Runner
from kaito_runtime.engine.sampling import Sampler
from kaito_runtime.engine.worker import Worker
from kaito_runtime.errors import GroupLostError, RequestError
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.lora.records import AdapterVersion, AdapterWeights

__all__ = ["TorchEngine"]

log = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 1
_UNSCHEDULABLE_SECONDS = 0.02
_LOOK_SECONDS = 0.1  # between two looks at whether all ranks have read an adapter
_BEAT_SECONDS = 1.0  # between two beats of a shared runner
_HANG_SECONDS = 600.0  # longer than any pass: then another rank hangs in it
_END_SECONDS = 10.0  # for a thread that may hang in a pass


class TorchEngine:
    """Serves one model. `start` and all later calls happen in one event loop.

    Args:
        model: In evaluation mode.
        runner: Computes it; where other processes share the model, on all of them.
        end_tokens: Tokens that end a sequence.
        context_length: Longest sequence of the model, in tokens; the cache may shorten it.
        max_waiting: Most jobs that wait for a place in the batch; more are refused.
        default_sampling: What a request gets that says nothing about how tokens are chosen.
        watch_logits: For tests: called in each pass with the prompts of the rows that get a token, and their logits
            ([n, V], float32).
    """

    def __init__(
        self,
        model: nn.Module,
        runner: Runner,
        *,
        end_tokens: Collection[int],
        context_length: int,
        max_waiting: int = 256,
        default_sampling: Sampling = NO_DEFAULTS,
        watch_logits: Callable[[list[Sequence[int]], Tensor], None] | None = None,
    ) -> None:
        self._model = model
        self._runner = runner
        self._end_tokens = frozenset(end_tokens)
        self._watch_logits = watch_logits
        self.default_sampling = default_sampling
        self.most_jobs = runner.limits.requests + max_waiting
        self.context_length = min(context_length, runner.longest)
        self.vocabulary_size = int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        self._device = next(model.parameters()).device
        self._ids = itertools.count()
        # Used in the event loop's thread only.
        self._open = 0  # jobs whose streams have not ended
        self._accepts = False
        self._hangs = False
        self._beats: asyncio.Task[None] | None = None
        # Written in the worker's thread only; any thread may read the last two, which are immutable.
        self._jobs = LiveJobs()
        self._stats = EngineStats()
        self._device_lost = ""
        self._worker = Worker("engine", busy=lambda: len(self._jobs) > 0, turn=self._pass)

    # ------------------------------------------------------------------------------------- the event loop's thread

    def start(self) -> None:
        """Starts to work. Tokens are delivered in the event loop that is running now."""
        self._accepts = True
        self._worker.start()
        if self._runner.shared:
            self._beats = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Fails the jobs that are left, and ends the thread and the other ranks."""
        self._accepts = False
        if self._beats is not None:
            self._beats.cancel()
        error = RequestError("the server is stopping", status=503, code="engine_stopped")
        patience_seconds = _END_SECONDS if self._runner.shared else None
        await self._worker.stop(lambda: self._end(error), patience_seconds=patience_seconds)

    @property
    def alive(self) -> bool:
        """Whether it can take jobs."""
        return self._accepts and self._worker.alive and not self.lost

    @property
    def lost(self) -> str:
        """See `Engine.lost`."""
        if self._device_lost:
            return self._device_lost
        if self._hangs:
            return f"a forward pass takes more than {_HANG_SECONDS:g} s: a rank hangs"
        return self._runner.lost

    @property
    def leaving(self) -> bool:
        """Whether another rank was asked to end: the server should drain."""
        return self._runner.leaving

    def submit(self, job: Job) -> TokenStream:
        """See `Engine.submit`."""
        if not self.alive:
            raise RequestError("the engine has stopped", status=503, code="engine_stopped")
        if self._open >= self.most_jobs:
            raise RequestError(
                f"the server is full: {self._open} requests are running or waiting",
                status=429,
                code="rate_limit_exceeded",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._open += 1
        request_id = f"{next(self._ids)}"
        stream = TokenStream(cancel=lambda: self._worker.submit(partial(self._forget, request_id)))
        self._worker.submit(partial(self._admit, request_id, job, stream))
        return stream

    async def load_adapter(self, name: str, path: Path, digest: str | None) -> AdapterVersion:
        """See `Engine.load_adapter`."""
        weights = await asyncio.to_thread(partial(read_adapter, path, self._model, name=name, digest=digest))
        ticket = await self._worker.call(lambda: self._runner.start_reading(weights, path))
        try:
            # Other processes cannot set an event.
            while not await self._worker.call(lambda: self._runner.all_have_read(ticket)):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)
            return await self._worker.call(lambda: self._load(weights, ticket))
        finally:
            self._worker.submit(lambda: self._runner.stop_reading(ticket))

    def retire_adapter(self, version: AdapterVersion) -> None:
        """See `Engine.retire_adapter`."""
        self._worker.submit(partial(self._retire, version))

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return replace(self._stats, waiting=max(0, self._open - self._stats.running))

    async def _beat(self) -> None:
        while not self.lost:
            await asyncio.sleep(_BEAT_SECONDS)
            try:
                await asyncio.wait_for(self._worker.call(self._runner.beat), _HANG_SECONDS)
            except TimeoutError:
                self._hangs = True
            except GroupLostError:
                break
        log.error("%s", self.lost)
        gone = RequestError(f"the server is stopping: {self.lost}", status=503, code="engine_stopped")
        if self._hangs:  # and with it the worker, which could not tell its clients
            self._deliver([(self._jobs[request_id].stream, gone) for request_id in list(self._jobs)])
        else:
            self._worker.submit(lambda: self._fail(list(self._jobs), gone))

    def _deliver(self, events: list[Event]) -> None:
        for stream, event in events:
            if isinstance(event, Exception) or event.finish is not None:
                self._open -= 1
            stream.put(event)

    def _closed(self) -> None:
        self._open -= 1

    # ------------------------------------------------------------------------------------------ the worker's thread

    def _admit(self, request_id: str, job: Job, stream: TokenStream) -> None:
        ends = job.stop_tokens | (frozenset() if job.ignores_end else self._end_tokens)
        try:
            live = LiveJob(job, stream, Sampler(job.sampling, job.prompt, ends), ends)
            self._runner.check(job.strengths)
            self._runner.add(
                request_id,
                job.prompt,
                job.max_tokens,
                ends,
                job.strengths,
                scores_prompt=job.prompt_logprobs is not None,
            )
        except RequestError as refused:
            self._worker.run_in_loop(partial(self._deliver, [(stream, refused)]))
            return
        except Exception as error:
            refusal = RequestError(f"the request cannot start: {error}", status=500, code="engine_error")
            self._worker.run_in_loop(partial(self._deliver, [(stream, refusal)]))
            raise
        self._jobs.add(request_id, live)

    def _forget(self, request_id: str) -> None:
        if self._jobs.remove(request_id):
            self._runner.drop([request_id])
            self._publish_batch(())
            self._worker.run_in_loop(self._closed)

    def _load(self, weights: AdapterWeights, ticket: int) -> AdapterVersion:
        try:
            version = self._runner.load(weights, ticket)
        except Exception:
            self._look_at_device()
            raise
        self._publish_resident()
        return version

    def _retire(self, version: AdapterVersion) -> None:
        self._runner.retire(version)
        self._publish_resident()

    def _end(self, error: RequestError) -> None:
        self._fail(list(self._jobs), error)
        self._runner.end()

    def _pass(self) -> None:
        rows: Collection[str] = tuple(self._jobs)
        if self._device_lost:
            message = f"the server is stopping: {self._device_lost}"
            self._fail(rows, RequestError(message, status=503, code="engine_stopped"))
            return
        try:
            batch = self._runner.prepare()
            if not batch:
                time.sleep(_UNSCHEDULABLE_SECONDS)
                return
            rows = [row.request_id for row in batch]
            self._jobs.begin(batch)
            complete = self._runner.step(self._choose, self._jobs.score)
        except Exception as error:  # of whatever kind: the requests of the pass end, and the others go on
            log.exception("a forward pass of %d requests failed", len(rows))
            stats = self._stats
            self._stats = replace(stats, failures=stats.failures + 1, failures_in_a_row=stats.failures_in_a_row + 1)
            self._look_at_device()  # first: a client that reads the error may ask at once whether the server lives
            message = f"the model failed: {type(error).__name__}: {error}"
            self._fail(rows, RequestError(message, status=500, code="engine_error"))
            return
        self._stats = replace(self._stats, passes=self._stats.passes + 1, failures_in_a_row=0)
        if self._jobs.failed:
            self._look_at_device()
        for request_id, why in self._jobs.failed.items():
            self._fail([request_id], why)
        events = self._jobs.collect(complete)
        self._publish_batch(rows)  # first: a client that reads its last token may ask at once for the statistics
        self._worker.run_in_loop(partial(self._deliver, events))

    def _choose(self, request_ids: Sequence[str], logits: Tensor) -> list[int]:
        if self._watch_logits is not None:
            self._watch_logits([self._jobs[request_id].job.prompt for request_id in request_ids], logits)
        return self._jobs.choose(request_ids, logits)

    def _look_at_device(self) -> None:
        """Notes that the GPU is lost; then the next pass fails every job that is left."""
        if not self._device_lost and (why := why_lost(self._device)):
            self._device_lost = f"{self._device} no longer works: {why}"
            log.error("%s", self._device_lost)

    def _fail(self, request_ids: Collection[str], error: RequestError) -> None:
        events = self._jobs.fail(request_ids, error)
        self._worker.guard(lambda: self._runner.drop(request_ids))
        self._publish_batch(())
        self._worker.run_in_loop(partial(self._deliver, events))

    def _publish_batch(self, running: Collection[str]) -> None:
        in_batch, waiting = self._jobs.adapters(running)
        self._stats = replace(
            self._stats,
            running=min(len(self._jobs), self._runner.running),
            cache_use=self._runner.cache_use,
            prefix_tokens=self._runner.prefix_tokens,
            running_adapters=in_batch,
            waiting_adapters=waiting,
        )

    def _publish_resident(self) -> None:
        sizes: Mapping[str, int] = {resident.name: resident.nbytes for resident in self._runner.resident()}
        self._stats = replace(self._stats, resident_bytes=sizes)
