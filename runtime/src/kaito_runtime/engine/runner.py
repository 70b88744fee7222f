"""Runner: the part of an engine that every rank has: model, adapters and batch. No clients, no sampling.

Two runners that get the same calls in the same order are in the same state. The engine (`torch_engine`) drives one.
Where several processes share the model, that is a `ranks.lead.Lead`, which has the other ranks make the same calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from kaito_runtime.engine.batching import Batcher, Choose, Row, Score, score_nothing
from kaito_runtime.errors import RequestError
from kaito_runtime.lora.inject import LoraModel
from kaito_runtime.lora.pages import PAGE, pages_for
from kaito_runtime.lora.records import AdapterVersion, AdapterWeights, ResidentAdapter
from kaito_runtime.model.memory import BatchLimits

__all__ = ["Runner"]

_Queued = Callable[[], None]
"""Lets the batcher have a request."""


class Runner:
    """Computes many requests in one model, each with its adapters. Belongs to one thread.

    Args:
        model: In evaluation mode, its linear layers replaced by `lora`'s.
        lora: The bank and the routing that those layers read.
        limits: Sizes of batch and cache.

    Attributes:
        limits: Sizes of batch and cache.
        longest: Longest sequence that the cache can hold, in tokens.
        shared: Whether other processes share the model. If so, `beat` must be called about once a second, and any call
            may hang or raise `GroupLostError`.
        leaving: Whether one of those processes was asked to end, and with it all of them.
    """

    shared = False
    leaving = False

    def __init__(self, model: nn.Module, lora: LoraModel, limits: BatchLimits) -> None:
        self._lora = lora
        self._batcher = Batcher(model, limits)
        self._held: dict[str, Mapping[AdapterVersion, float]] = {}
        self._pinned: set[str] = set()
        self._without_pages: dict[str, _Queued] = {}  # by request, in their order
        self._rows: tuple[Row, ...] = ()
        self.limits = limits
        self.longest = self._batcher.longest

    def add(
        self,
        request_id: str,
        prompt: Sequence[int],
        max_tokens: int,
        end_tokens: Collection[int],
        strengths: Mapping[AdapterVersion, float],
        *,
        scores_prompt: bool = False,
    ) -> None:
        """Queues a request, which holds its adapter versions until it ends.

        Raises:
            KeyError: A version is not resident (any more); nothing is queued.
            ValueError: See `Scheduler.add`; nothing is queued.
        """
        held: list[AdapterVersion] = []
        try:
            for version in strengths:
                self._lora.bank.acquire(version)
                held.append(version)
            # By content, whatever the names. A sorted tuple, not a set: two names may stand for the same content.
            salt = tuple(sorted((version.digest, strength) for version, strength in strengths.items() if strength))
            self._held[request_id] = strengths
            self._without_pages[request_id] = partial(
                self._batcher.add,
                request_id,
                prompt,
                max_tokens,
                end_tokens,
                salt or None,
                scores_prompt=scores_prompt,
            )
            if len(self._without_pages) == 1 or not salt:
                self._admit(request_id)
        except Exception:
            self._without_pages.pop(request_id, None)
            self._held.pop(request_id, None)
            self._unpin(request_id, strengths)
            for version in held:
                self._lora.bank.release(version)
            raise

    def check(self, strengths: Mapping[AdapterVersion, float]) -> None:
        """Checks that the adapters of one request can be in use at once.

        Raises:
            RequestError: They need more pages than there are.
        """
        bank = self._lora.bank
        needed = {version.name: pages_for(bank.rank(version)) for version, strength in strengths.items() if strength}
        if sum(needed.values()) > bank.limit:
            each = ", ".join(f"'{name}' {pages}" for name, pages in needed.items())
            raise RequestError(
                f"adapters need {sum(needed.values())} pages of {PAGE} ranks together ({each}), the server has "
                f"{bank.limit}: use fewer, or set --adapter-memory higher",
                code="adapters_exceed_memory",
                param="adapters",
            )

    def _admit(self, request_id: str) -> bool:
        """Lets the batcher have a request if its adapters are in pages, or can be brought there."""
        live = _live(self._held[request_id])
        if live and not self._lora.bank.pin(live):
            return False
        if live:
            self._pinned.add(request_id)
        self._without_pages.pop(request_id)()
        return True

    def drop(self, request_ids: Collection[str]) -> None:
        """Forgets requests at once; unknown ids are ignored. Not between `prepare` and `step`."""
        for request_id in request_ids:
            self._without_pages.pop(request_id, None)
        self._batcher.drop(request_ids)
        self._release(request_ids)

    def prepare(self) -> tuple[Row, ...]:
        """Chooses the rows of the next pass; empty if there is nothing to do."""
        # In their order: a request that waits for pages is not passed by later ones that would keep them.
        while self._without_pages and self._admit(next(iter(self._without_pages))):
            pass
        self._rows = self._batcher.prepare()
        return self._rows

    def step(self, choose: Choose, score: Score = score_nothing) -> set[str]:
        """Runs the pass that `prepare` chose and returns the ids of the requests that are complete after it.

        Args:
            choose: Returns the next tokens.
            score: Takes the logits of tokens of prompts, if a request asks for them; called before `choose`.
        """
        spans = [(row.tokens, self._held[row.request_id]) for row in self._rows]
        self._lora.routing.set(spans, self._batcher.head_spans(spans))
        complete = self._batcher.step(choose, score)
        self._release(complete)
        return complete

    def start_reading(self, weights: AdapterWeights, path: Path) -> int:
        """Makes every other process that shares the model read the same adapter; returns a ticket for `load`."""
        return 0

    def all_have_read(self, ticket: int) -> bool:
        """Returns whether they have.

        Raises:
            AdapterLoadError: One of them cannot.
        """
        return True

    def stop_reading(self, ticket: int) -> None:
        """Ends a ticket, whether or not the adapter was loaded."""

    def load(self, weights: AdapterWeights, ticket: int = 0) -> AdapterVersion:
        """Makes an adapter resident, in all processes that share the model or in none.

        Args:
            ticket: Of `start_reading`.

        Raises:
            AdapterLoadError: It does not fit.
        """
        return self._lora.bank.load(weights)

    def retire(self, version: AdapterVersion) -> None:
        """Unloads a version as soon as no request holds it."""
        self._lora.bank.retire(version)

    def resident(self) -> list[ResidentAdapter]:
        """Lists the resident versions."""
        return self._lora.bank.resident()

    def beat(self) -> None:
        """Exchanges signs of life with the other processes that share the model."""

    @property
    def lost(self) -> str:
        """Why the other processes are lost, and nothing can be computed without them; "" where all is well."""
        return ""

    def end(self) -> None:
        """Ends the other processes that share the model. Nothing may be called afterwards."""

    @property
    def running(self) -> int:
        """Number of requests that hold cache pages."""
        return self._batcher.running

    @property
    def cache_use(self) -> float:
        """Share of the cache that is in use, in [0, 1]."""
        return self._batcher.cache_use

    @property
    def prefix_tokens(self) -> tuple[int, int]:
        """(prompt tokens so far, those of them that were found computed)."""
        return self._batcher.prefix_tokens

    def _release(self, request_ids: Collection[str]) -> None:
        for request_id in request_ids:
            strengths = self._held.pop(request_id, {})
            self._unpin(request_id, strengths)
            for version in strengths:
                self._lora.bank.release(version)

    def _unpin(self, request_id: str, strengths: Mapping[AdapterVersion, float]) -> None:
        if request_id in self._pinned:
            self._pinned.discard(request_id)
            self._lora.bank.unpin(_live(strengths))


def _live(strengths: Mapping[AdapterVersion, float]) -> list[AdapterVersion]:
    return [version for version, strength in strengths.items() if strength]
