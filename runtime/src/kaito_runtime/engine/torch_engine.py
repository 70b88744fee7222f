"""TorchEngine: the engine over transformers. One thread owns the runner (model, bank and batch); all else sends it
work. Where several processes share the model, this is the first one's, and the runner (`lead`) speaks for all.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from kaito_runtime.engine.batching import Row
from kaito_runtime.engine.device import why_lost
from kaito_runtime.engine.protocol import EngineStats, Job, Token, TokenStream
from kaito_runtime.engine.runner import Runner
from kaito_runtime.engine.sampling import Choice, Sampler, choose
from kaito_runtime.engine.worker import Worker
from kaito_runtime.errors import AdapterLoadError, GroupLostError, RequestError
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.lora.inject import LoraModel
from kaito_runtime.lora.records import AdapterVersion, AdapterWeights
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.ranks.group import BEAT_SECONDS, Group
from kaito_runtime.ranks.lead import Lead

__all__ = ["TorchEngine"]

log = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 1
_UNSCHEDULABLE_SECONDS = 0.02
_LOOK_SECONDS = 0.1  # between two looks at what the other ranks read
_HANG_SECONDS = 600.0  # longer than any pass; then another rank hangs in one
_END_SECONDS = 10.0  # for a thread that may hang in a pass
_NO_TOKEN = 0  # what the batch, on all ranks, takes for the token of a row that fails; nobody sees it


@dataclass(slots=True)
class _Live:
    job: Job
    stream: TokenStream
    sampler: Sampler
    cached: int | None = None  # tokens of the prompt; not known before its first pass


class TorchEngine:
    """Serves one model. `start` and everything after it happens in one event loop.

    Args:
        model: In evaluation mode, its linear layers replaced by `lora`'s.
        lora: The bank and the routing that those layers read.
        end_tokens: Tokens that end a sequence.
        context_length: Longest sequence that the model can do, in tokens.
        limits: Sizes of batch and cache; the cache may shorten the context.
        max_waiting: Most jobs that wait for a place in the batch; more are refused.
        watch_logits: Called in each pass with the prompts of the rows that get a token and their logits
            ([n, V], float32), for tests.
        group: The processes that share the model, which this one leads; None where it has the model alone.
        adapters_dir: Folder that adapters are under on every rank.
    """

    def __init__(
        self,
        model: nn.Module,
        lora: LoraModel,
        *,
        end_tokens: Collection[int],
        context_length: int,
        limits: BatchLimits,
        max_waiting: int = 256,
        watch_logits: Callable[[list[Sequence[int]], Tensor], None] | None = None,
        group: Group | None = None,
        adapters_dir: Path | None = None,
    ) -> None:
        self._model = model
        self._end_tokens = frozenset(end_tokens)
        self.most_jobs = limits.requests + max_waiting
        self._watch_logits = watch_logits
        self._lead = None if group is None else Lead(model, lora, limits, self._choose, group, adapters_dir)
        self._runner = self._lead or Runner(model, lora, limits, self._choose)
        self.context_length = min(context_length, self._runner.longest)
        self.vocabulary_size = int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        self._device = next(model.parameters()).device
        self._ids = itertools.count()
        # Owned by the event loop's thread.
        self._open = 0
        self._accepts = False
        self._hangs = False
        self._beats: asyncio.Task[None] | None = None
        # Owned by the worker's thread; everybody may read the latest statistics, an immutable record, and what is lost.
        self._live: dict[str, _Live] = {}
        self._chosen: dict[str, Choice] = {}
        self._failed: dict[str, RequestError] = {}
        self._stats = EngineStats()
        self._device_lost = ""
        self._worker = Worker("engine", busy=lambda: bool(self._live), turn=self._pass)

    # ------------------------------------------------------------------------------------- the event loop's thread

    def start(self) -> None:
        """Starts to work. Needs a running event loop, which is where tokens are delivered."""
        self._accepts = True
        self._worker.start()
        if self._lead is not None:
            self._beats = asyncio.create_task(self._beat(self._lead))

    async def stop(self) -> None:
        """Fails what is left and ends the thread, and the other ranks."""
        self._accepts = False
        if self._beats is not None:
            self._beats.cancel()
        error = RequestError("the server is stopping", status=503, code="engine_stopped")
        await self._worker.stop(lambda: self._end(error), patience_seconds=None if self._lead is None else _END_SECONDS)

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
            return f"a pass takes more than {_HANG_SECONDS:g} s: a rank hangs"
        return "" if self._lead is None else self._lead.lost

    @property
    def leaving(self) -> bool:
        """Whether another rank was asked to end: the server should drain."""
        return self._lead is not None and self._lead.leaving

    def submit(self, job: Job) -> TokenStream:
        """See `Engine.submit`."""
        if not self.alive:
            raise RequestError("the engine has stopped", status=503, code="engine_stopped")
        if self._open >= self.most_jobs:
            raise RequestError(
                f"the server is full: {self._open} requests are running or waiting",
                status=429,
                code="queue_full",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._open += 1
        request_id = f"{next(self._ids)}"
        stream = TokenStream(cancel=partial(self._cancel, request_id))
        self._worker.ask(partial(self._admit, request_id, job, stream))
        return stream

    async def load_adapter(self, name: str, path: Path, digest: str | None) -> AdapterVersion:
        """See `Engine.load_adapter`."""
        weights = await asyncio.to_thread(partial(read_adapter, path, self._model, name=name, digest=digest))
        if self._lead is not None:
            return await self._load_everywhere(self._lead, weights, path)
        return await self._worker.call(lambda: self._load(weights))

    async def _load_everywhere(self, lead: Lead, weights: AdapterWeights, path: Path) -> AdapterVersion:
        """Loads what this rank has read, once every other has read the same."""
        ticket = await self._worker.call(lambda: lead.start_reading(weights.name, path, weights.digest))
        try:
            troubles = None
            while troubles is None:
                await asyncio.sleep(_LOOK_SECONDS)
                troubles = await self._worker.call(lambda: lead.troubles(ticket))
            if troubles:
                raise AdapterLoadError(weights.name, "; ".join(troubles), transient=True)
            return await self._worker.call(lambda: self._load(weights, ticket))
        finally:
            self._worker.ask(lambda: lead.stop_reading(ticket))

    async def _beat(self, lead: Lead) -> None:
        while not self.lost:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await asyncio.wait_for(self._worker.call(lead.beat), _HANG_SECONDS)
            except TimeoutError:
                self._hangs = True
            except GroupLostError:
                break
        log.error("%s", self.lost)
        gone = RequestError(f"the server is stopping: {self.lost}", status=503, code="engine_stopped")
        if self._hangs:  # so does the worker, and nobody else has anything to say to clients
            self._hand_over([(live.stream, gone) for live in list(self._live.values())])
        else:
            self._worker.ask(lambda: self._fail(list(self._live), gone))

    def retire_adapter(self, version: AdapterVersion) -> None:
        """See `Engine.retire_adapter`."""
        self._worker.ask(partial(self._retire, version))

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return replace(self._stats, waiting=max(0, self._open - self._stats.running))

    def _cancel(self, request_id: str) -> None:
        self._worker.ask(partial(self._forget, request_id))

    def _hand_over(self, events: list[tuple[TokenStream, Token | Exception]]) -> None:
        for stream, event in events:
            if isinstance(event, Exception) or event.finish is not None:
                self._open -= 1
            stream.put(event)

    def _closed(self) -> None:
        self._open -= 1

    # ------------------------------------------------------------------------------------------ the worker's thread

    def _admit(self, request_id: str, job: Job, stream: TokenStream) -> None:
        try:
            sampler = Sampler(job.sampling, self._device)
            self._runner.add(request_id, job.prompt, job.max_tokens, self._ends(job), job.strengths)
        except Exception as error:
            refusal = RequestError(f"the request cannot start: {error}", status=500, code="engine_error")
            self._worker.tell(partial(self._hand_over, [(stream, refusal)]))
            raise
        self._live[request_id] = _Live(job, stream, sampler)

    def _ends(self, job: Job) -> frozenset[int]:
        return frozenset() if job.ignores_end else self._end_tokens

    def _forget(self, request_id: str) -> None:
        if self._live.pop(request_id, None) is not None:
            self._runner.drop([request_id])
            self._publish_batch(())
            self._worker.tell(self._closed)

    def _load(self, weights: AdapterWeights, ticket: int = 0) -> AdapterVersion:
        try:
            version = self._runner.load(weights) if self._lead is None else self._lead.load_everywhere(weights, ticket)
        except Exception:
            self._look_at_device()
            raise
        self._publish_residents()
        return version

    def _retire(self, version: AdapterVersion) -> None:
        self._runner.retire(version)
        self._publish_residents()

    def _end(self, error: RequestError) -> None:
        self._fail(list(self._live), error)
        if self._lead is not None:
            self._lead.end()

    def _pass(self) -> None:
        rows: Collection[str] = tuple(self._live)
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
            self._note_cached(batch)
            self._chosen, self._failed = {}, {}
            complete = self._runner.step()
        except Exception as error:  # whatever the model raises, its requests end and the others go on
            log.exception("a forward pass failed, with it %d requests", len(rows))
            self._stats = replace(
                self._stats, failures=self._stats.failures + 1, failures_in_a_row=self._stats.failures_in_a_row + 1
            )
            self._look_at_device()  # first, so that who sees the error sees whether it was the last
            message = f"the model failed: {type(error).__name__}: {error}"
            self._fail(rows, RequestError(message, status=500, code="engine_error"))
            return
        self._stats = replace(self._stats, passes=self._stats.passes + 1, failures_in_a_row=0)
        if self._failed:
            self._look_at_device()
        for request_id, why in self._failed.items():
            self._fail([request_id], why)
        events = self._collect(complete)
        self._publish_batch(rows)  # first, so that who sees the last token sees no trace of the request
        self._worker.tell(partial(self._hand_over, events))

    def _note_cached(self, batch: Sequence[Row]) -> None:
        for row in batch:
            live = self._live.get(row.request_id)
            if live is not None and live.cached is None:
                live.cached = row.before

    def _choose(self, request_ids: Sequence[str], logits: Tensor) -> list[int]:
        if self._watch_logits is not None:
            self._watch_logits([self._live[request_id].job.prompt for request_id in request_ids], logits)
        tokens = []
        outcomes = choose([self._live[request_id].sampler for request_id in request_ids], logits)
        for request_id, outcome in zip(request_ids, outcomes, strict=True):
            if isinstance(outcome, RequestError):
                self._failed[request_id] = outcome
                tokens.append(_NO_TOKEN)
            else:
                self._chosen[request_id] = outcome
                tokens.append(outcome[0])
        return tokens

    def _look_at_device(self) -> None:
        """Takes note of a GPU that is lost; the next turn ends every request that is left."""
        if not self._device_lost and (why := why_lost(self._device)):
            self._device_lost = f"{self._device} can compute nothing any more: {why}"
            log.error("%s", self._device_lost)

    def _collect(self, complete: set[str]) -> list[tuple[TokenStream, Token | Exception]]:
        events: list[tuple[TokenStream, Token | Exception]] = []
        for request_id, (token, logprob, top) in self._chosen.items():
            live = self._live[request_id]
            finish = None
            if request_id in complete:
                finish = "stop" if token in self._ends(live.job) else "length"
            events.append((live.stream, Token(token, finish, logprob, top, live.cached or 0)))  # type: ignore[arg-type]
            if finish is not None:
                del self._live[request_id]
        return events

    def _fail(self, request_ids: Collection[str], error: RequestError) -> None:
        lives = [self._live.pop(request_id, None) for request_id in request_ids]
        events: list[tuple[TokenStream, Token | Exception]] = [(live.stream, error) for live in lives if live]
        self._worker.guard(lambda: self._runner.drop(request_ids))
        self._publish_batch(())
        self._worker.tell(partial(self._hand_over, events))

    def _publish_batch(self, running: Collection[str]) -> None:
        in_batch: set[str] = set()
        others: set[str] = set()
        for request_id, live in self._live.items():
            (in_batch if request_id in running else others).update(version.name for version in live.job.strengths)
        self._stats = replace(
            self._stats,
            running=min(len(self._live), self._runner.running),
            cache_use=self._runner.cache_use,
            prefix_tokens=self._runner.prefix_tokens,
            running_adapters=tuple(sorted(in_batch)),
            waiting_adapters=tuple(sorted(others)),
        )

    def _publish_residents(self) -> None:
        sizes: Mapping[str, int] = {resident.name: resident.nbytes for resident in self._runner.resident()}
        self._stats = replace(self._stats, resident_bytes=sizes)
