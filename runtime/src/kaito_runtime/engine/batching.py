"""Batcher: forward passes over many requests. Which requests take part is decided in `scheduler`.

Of transformers, only public names are used: the model's forward pass, and the registry of attention functions.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kaito_runtime.engine import attention
from kaito_runtime.engine.device import why_lost
from kaito_runtime.engine.packing import CacheMemory, PackedPlan, Piece, Upload
from kaito_runtime.engine.scheduler import Request, Row, Scheduler
from kaito_runtime.engine.self_check import BatchCheck
from kaito_runtime.errors import ModelLoadError, is_out_of_memory, one_line
from kaito_runtime.lora.records import Span
from kaito_runtime.model.memory import BatchLimits, memory_for
from kaito_runtime.model.rope import RotaryTables

__all__ = ["Batcher", "Choose", "Row", "Score"]

log = logging.getLogger(__name__)

Choose = Callable[[Sequence[str], Tensor], Sequence[int]]
"""Returns the next tokens of requests, given their ids and logits ([n, V], float32)."""
Score = Callable[[str, int, Tensor], None]
"""Takes the logits ([n, V], float32) of tokens of a request's prompt: its id, the first of the tokens, logits."""
_LAYERS = {"full_attention", "sliding_attention"}


def score_nothing(request_id: str, first: int, logits: Tensor) -> None:
    """Takes logits of prompts where nobody asks for them."""


class Batcher:
    """Computes many requests in one model, a forward pass at a time.

    Args:
        model: A transformers model in evaluation mode; its attention is replaced by a paged one.
        limits: Sizes of batch and cache.

    Attributes:
        longest: Longest sequence that the cache can hold, in tokens.

    Raises:
        ModelLoadError: The model's attention cannot be replaced, it computes something else in batches, or there is not
            enough memory.
    """

    def __init__(self, model: nn.Module, limits: BatchLimits) -> None:
        wrapped: Any = model
        self._model = wrapped
        what = f"a key-value cache of {limits.cache_tokens} tokens and a first pass"
        try:
            with memory_for(what, "set --cache-gib or --step-tokens lower, or take a machine with more memory"):
                _refuse_other_layers(wrapped)
                self._ropes = RotaryTables(model)
                check = BatchCheck(wrapped, limits, self._ropes)
                wrapped.set_attn_implementation(attention.NAME)
                self._keeps_some = "logits_to_keep" in inspect.signature(wrapped.forward).parameters
                self._upload = Upload(wrapped.device)
                self._start(limits, check, kernel=_has_kernel(wrapped.device))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ModelLoadError(f"{type(model).__name__} cannot run in continuous batches: {why}") from error
        self.longest = self._scheduler.longest
        self._scheduler.forget_prefixes()

    def _start(self, limits: BatchLimits, check: BatchCheck, *, kernel: bool) -> None:
        """Makes cache and scheduler, and checks that the model computes what it should.

        Args:
            kernel: Whether the kernel of paged attention is tried. It costs speed and not the service if it does not
                run, or computes something else, on this device.
        """
        blocks = -(-limits.cache_tokens // limits.page_tokens)
        self._memory = CacheMemory(blocks, limits.page_tokens, kernel=kernel)
        self._scheduler = Scheduler(
            blocks=blocks,
            block_tokens=limits.page_tokens,
            step_tokens=limits.step_tokens,
            requests=limits.requests,
            reuse_prefixes=limits.reuse_prefixes,
            rope_of=self._ropes.table_of,
        )
        try:
            check.run(self)
        except Exception as error:
            if not kernel or is_out_of_memory(error) or why_lost(self._model.device):
                raise
            log.warning("attention is computed without its kernel, which is slower: %s", one_line(error))
            del self._memory  # before the next one is made
            self._start(limits, check, kernel=False)

    def add(
        self,
        request_id: str,
        prompt: Sequence[int],
        max_tokens: int,
        end_tokens: Collection[int],
        salt: Hashable = None,
        *,
        scores_prompt: bool = False,
    ) -> None:
        """Queues a request; see `Scheduler.add`.

        Raises:
            ValueError: It can never be computed.
        """
        self._scheduler.add(request_id, prompt, max_tokens, end_tokens, salt, scores_prompt=scores_prompt)

    def drop(self, request_ids: Collection[str]) -> None:
        """Forgets requests at once and frees their cache; unknown ids are ignored. Not between `prepare` and `step`."""
        self._scheduler.drop(request_ids)

    def prepare(self) -> tuple[Row, ...]:
        """Chooses the rows of the next pass, in packed order; empty if there is nothing to do."""
        return self._scheduler.plan()

    def head_spans(self, spans: Sequence[Span]) -> list[Span] | None:
        """Returns the spans of the rows that the output head gets, given those of the tokens; None: all tokens.

        Those whose next token is chosen come first, then those that score a prompt.
        """
        if not self._keeps_some:
            return None
        planned = list(zip(self._scheduler.planned(), spans, strict=True))
        head: list[Span] = [(1, strengths) for (_, row), (_, strengths) in planned if row.samples]
        return head + [(row.scores, strengths) for (_, row), (_, strengths) in planned if row.scores]

    def step(self, choose: Choose, score: Score = score_nothing) -> set[str]:
        """Runs the pass that `prepare` chose and returns the ids of the requests that are complete after it.

        Args:
            choose: Returns the next tokens.
            score: Takes the logits of tokens of prompts, if a request asks for them; called before `choose`.
        """
        planned = self._scheduler.planned()
        with torch.inference_mode():
            logits = self._forward(planned)
            asking = [row.request_id for _, row in planned if row.samples]
            start = len(asking)
            for request, row in planned:
                if row.scores:
                    score(row.request_id, _first_scored(request, row), logits[start : start + row.scores])
                    start += row.scores
            tokens = choose(asking, logits[: len(asking)])
        return self._scheduler.commit(tokens)

    @property
    def running(self) -> int:
        """Number of requests that hold cache pages."""
        return self._scheduler.running

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a place in the batch."""
        return self._scheduler.waiting

    @property
    def cache_use(self) -> float:
        """Share of the cache that is in use, in [0, 1]; prefixes that are only kept to be shared do not count."""
        return self._scheduler.pool.held / self._scheduler.pool.blocks

    @property
    def prefix_tokens(self) -> tuple[int, int]:
        """(prompt tokens so far, those of them that were found computed)."""
        return self._scheduler.asked, self._scheduler.found

    def _forward(self, planned: Sequence[tuple[Request, Row]]) -> Tensor:
        """Returns the logits of the rows that sample, then of the tokens that score a prompt; [n, V], float32."""
        tokens: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        scoring: list[int] = []
        pieces = []
        for request, row in planned:
            start, end = row.before, row.before + row.tokens
            if row.scores:
                first = len(tokens) + _first_scored(request, row) - 1 - start
                scoring += range(first, first + row.scores)
            tokens += request.tokens[start:end]
            positions += range(start, end)
            pieces.append(Piece(row.tokens, end, request.blocks))
            if row.samples:
                last.append(len(tokens) - 1)
        wanted = last + scoring
        everything = len(wanted) == len(tokens) and not scoring
        parts = [np.asarray(part, dtype=np.int64) for part in (tokens, positions, [] if everything else wanted)]
        plan = PackedPlan(pieces, self._memory, self._upload, self._model.dtype, parts)
        ids, places, kept = plan.more
        keep = {} if everything or not self._keeps_some else {"logits_to_keep": kept}
        if self._ropes.boundaries:
            self._ropes.set([(row.tokens, len(request.tokens)) for request, row in planned])
        try:
            logits: Tensor = self._model(
                input_ids=ids[None], position_ids=places[None], use_cache=False, cache=plan, **keep
            ).logits[0]
        finally:
            self._ropes.clear()
        return (logits if everything or keep else logits[kept]).float()


def _first_scored(request: Request, row: Row) -> int:
    """Returns the first token of the prompt that the pass scores."""
    return max(row.before + 1, request.scored)


def _has_kernel(device: torch.device) -> bool:
    return device.type == "cuda"


def _refuse_other_layers(model: Any) -> None:
    config = model.config.get_text_config()
    if others := sorted(set(getattr(config, "layer_types", None) or ()) - _LAYERS):
        raise ModelLoadError(
            f"{type(model).__name__} cannot run in continuous batches: its configuration has layers of the type "
            f"{', '.join(map(repr, others))}; served are {', '.join(map(repr, sorted(_LAYERS)))}"
        )
