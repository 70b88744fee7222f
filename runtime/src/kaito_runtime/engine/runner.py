"""Runner: the part of an engine that every rank has: model, adapters and batch, and nothing of clients or of sampling.

Given the same calls in the same order, two runners are in the same state. The engine (`torch_engine`) owns one; where
several processes share a model, `lead` sends its calls on, and `follow` makes them on the other ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor, nn

from kaito_runtime.engine.batching import Batcher, Row
from kaito_runtime.lora.inject import LoraModel
from kaito_runtime.lora.records import AdapterVersion, AdapterWeights, ResidentAdapter
from kaito_runtime.model.memory import BatchLimits

__all__ = ["Choose", "Runner"]

Choose = Callable[[Sequence[str], Tensor], Sequence[int]]
"""Called in each pass with the ids of the requests that get a token and their logits ([n, V], float32)."""


class Runner:
    """Steps one model over many requests, each with its adapters. Belongs to one thread.

    Args:
        model: In evaluation mode, its linear layers replaced by `lora`'s.
        lora: The bank and the routing that those layers read.
        limits: Sizes of batch and cache.
        choose: Returns the tokens.
    """

    def __init__(self, model: nn.Module, lora: LoraModel, limits: BatchLimits, choose: Choose) -> None:
        self._lora = lora
        self._batcher = Batcher(model, limits, choose)
        self._held: dict[str, Mapping[AdapterVersion, float]] = {}
        self._rows: tuple[Row, ...] = ()
        self.longest = self._batcher.longest

    def add(
        self,
        request_id: str,
        prompt: Sequence[int],
        max_tokens: int,
        end_tokens: Collection[int],
        strengths: Mapping[AdapterVersion, float],
    ) -> None:
        """Queues a request, which holds its adapter versions until it has ended.

        Raises:
            KeyError: A version is not resident (any more); nothing is queued.
        """
        held: list[AdapterVersion] = []
        try:
            for version in strengths:
                self._lora.bank.acquire(version)
                held.append(version)
            # By content, whatever the names; sorted, not a set, since two names may stand for the same content.
            salt = tuple(sorted((version.digest, strength) for version, strength in strengths.items() if strength))
            self._batcher.add(request_id, prompt, max_tokens, end_tokens, salt or None)
        except Exception:
            for version in held:
                self._lora.bank.release(version)
            raise
        self._held[request_id] = strengths

    def drop(self, request_ids: Collection[str]) -> None:
        """Forgets requests at once; unknown ids are ignored. Not between `prepare` and `step`."""
        self._batcher.drop(request_ids)
        self._release(request_ids)

    def prepare(self) -> tuple[Row, ...]:
        """Chooses who is in the next pass; empty if there is nothing to do."""
        self._rows = self._batcher.prepare()
        return self._rows

    def step(self) -> set[str]:
        """Runs the pass that `prepare` chose and returns the ids of the requests that are complete after it."""
        self._lora.routing.set([(row.tokens, self._held[row.request_id]) for row in self._rows])
        complete = self._batcher.step()
        self._release(complete)
        return complete

    def load(self, weights: AdapterWeights) -> AdapterVersion:
        """Makes an adapter resident.

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

    @property
    def running(self) -> int:
        """Number of requests that hold cache pages."""
        return self._batcher.running

    @property
    def cache_use(self) -> float:
        """Share of the cache that is taken, in [0, 1]."""
        return self._batcher.cache_use

    @property
    def prefix_tokens(self) -> tuple[int, int]:
        """(tokens of all prompts so far, those of them that were found computed)."""
        return self._batcher.prefix_tokens

    def _release(self, request_ids: Collection[str]) -> None:
        for request_id in request_ids:
            for version in self._held.pop(request_id, {}):
                self._lora.bank.release(version)
