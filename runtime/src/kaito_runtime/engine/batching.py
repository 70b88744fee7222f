"""Batcher: continuous batching with transformers. What the runtime uses of its internals is here and in `attention`.

transformers schedules requests, owns the paged key-value cache and runs the forward pass. Its own loop thread is not
used: with a loop of our own, tokens are chosen per request, adapters are set per token before the pass, and a pass that
raises ends only its requests. `tests/engine/test_batching.py` fails by name where a new version of transformers moves
something that is used here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.cache import FULL_ATTENTION, group_layers_by_attn_type
from transformers.generation.continuous_batching.requests import RequestState, RequestStatus

from kaito_runtime.engine import attention
from kaito_runtime.engine.prefixes import Prefixes
from kaito_runtime.engine.self_check import BatchCheck
from kaito_runtime.errors import ModelLoadError
from kaito_runtime.lora.records import Span
from kaito_runtime.model.memory import BatchLimits, memory_for

__all__ = ["Batcher", "Choose", "Row"]

logging.getLogger("ContinuousBatchingLogger").setLevel(logging.WARNING)


Choose = Callable[[Sequence[str], Tensor], Sequence[int]]
"""Returns the next tokens of requests, given their ids and logits ([n, V], float32)."""


class Row(NamedTuple):
    """One request's part of a forward pass.

    Attributes:
        tokens: Number of its tokens in the pass.
        samples: Whether its next token is chosen after the pass; not so where a long prompt continues in the next.
        before: Number of its tokens that were computed before; at its first pass, those of a shared prefix.
    """

    request_id: str
    tokens: int
    samples: bool
    before: int


class Batcher:
    """Computes many requests in one model, a forward pass at a time.

    Args:
        model: A transformers model in evaluation mode; its attention is replaced by a paged one.
        limits: Sizes of batch and cache.

    Attributes:
        longest: Longest sequence that the cache can hold, in tokens.

    Raises:
        ModelLoadError: transformers cannot run this model in continuous batches, or computes something else in them, or
            there is not enough memory.
    """

    def __init__(self, model: nn.Module, limits: BatchLimits) -> None:
        wrapped: Any = model
        self._model = wrapped
        self._rows: tuple[Row, ...] = ()
        self._choose: Choose | None = None
        self._prefixes: Prefixes | None = None
        what = f"a key-value cache of {limits.cache_tokens} tokens and a first pass"
        try:
            with memory_for(what, "set --cache-gib or --step-tokens lower, or take a machine with more memory"):
                check = BatchCheck(wrapped)
                manager = wrapped.init_continuous_batching(
                    GenerationConfig(do_sample=False, eos_token_id=-1), _config(limits)
                )
                packed = _use_packed_attention(wrapped)
                self._processor = manager._create_batch_processor()
                self._layers = attention.cache_layers(self._processor.cache) if packed else None
                self._processor.output_router = _Nowhere()
                self._processor.model_runner._sample = self._sample
                check.run(self)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ModelLoadError(f"{type(model).__name__} cannot run in continuous batches: {why}") from error
        self.longest = self._processor.cache.max_tokens_read
        if limits.reuse_prefixes:
            self._prefixes = Prefixes(self._processor.cache)

    def add(
        self,
        request_id: str,
        prompt: Sequence[int],
        max_tokens: int,
        end_tokens: Collection[int],
        salt: Hashable = None,
    ) -> None:
        """Queues a request.

        Args:
            request_id: Not that of another request.
            prompt: Tokens.
            max_tokens: At least 1; prompt and answer together must fit the cache.
            end_tokens: Tokens that end the answer.
            salt: Only requests with equal salts share prefixes.
        """
        if self._prefixes is not None:
            self._prefixes.expect(request_id, salt)
        self._processor.scheduler.add_waiting_request(
            RequestState(
                request_id=request_id,
                initial_tokens=list(prompt),
                max_new_tokens=max_tokens,
                eos_token_id=list(end_tokens),
            )
        )

    def drop(self, request_ids: Collection[str]) -> None:
        """Forgets requests at once and frees their cache; unknown ids are ignored. Not between `prepare` and `step`."""
        if self._prefixes is not None:
            self._prefixes.forget(request_ids, spoilt=True)  # perhaps dropped because their keys are not finite
        for request_id in request_ids:
            self._processor.scheduler.set_request_cancellation(request_id)
        self._processor.scheduler.clear_cancelled_requests()
        self._processor.scheduler.block_new_requests = False

    def prepare(self) -> tuple[Row, ...]:
        """Chooses the rows of the next pass, in packed order; empty if there is nothing to do."""
        self._rows = ()
        if self._processor.prepare_next_batch():
            self._rows = tuple(
                Row(
                    future.state.request_id,
                    future.query_length,
                    future.has_new_token,
                    # The offset has moved already: it is the number of keys, the new ones included.
                    future.state.position_offset - future.query_length,
                )
                for future in self._in_batch()
            )
            if self._layers is not None:
                spans = [(row.tokens, row.before + row.tokens) for row in self._rows]
                inputs = self._processor.inputs_and_outputs.get_model_kwargs()
                (read,), (written,) = inputs["read_index"], inputs["write_index"]  # one each: all layers are alike
                self._processor.cache.plan = attention.plan_attention(spans, read, written, self._layers)
        return self._rows

    def head_spans(self, spans: Sequence[Span]) -> list[Span] | None:
        """Returns the spans of the rows that the output head gets, given those of the tokens; None: all tokens.

        transformers gives the head one row per request: first those whose next token is chosen, then some that nobody
        reads.
        """
        if not self._processor.model_runner.supports_logits_to_keep(self._model):
            return None
        head: list[Span] = [
            (1, strengths) for row, (_, strengths) in zip(self._rows, spans, strict=True) if row.samples
        ]
        return [*head, (len(self._rows) - len(head), {})] if len(head) < len(self._rows) else head

    def step(self, choose: Choose) -> set[str]:
        """Runs the pass that `prepare` chose and returns the ids of the requests that are complete after it."""
        self._choose = choose
        states = [future.state for future in self._in_batch()]
        with torch.inference_mode():  # cheaper for each operation than no_grad, which transformers uses
            self._processor._generation_step(self._model)
        self._processor.update_batch()
        complete = {state.request_id for state in states if state.status == RequestStatus.FINISHED}
        if self._prefixes is not None:
            self._prefixes.forget(complete, spoilt=False)
        return complete

    @property
    def running(self) -> int:
        """Number of requests that hold cache pages."""
        return len(self._processor.scheduler.active_requests)

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a place in the batch."""
        return len(self._processor.scheduler.waiting_requests)

    @property
    def cache_use(self) -> float:
        """Share of the cache that is in use, in [0, 1]; prefixes that are only kept to be shared do not count."""
        cache = self._processor.cache
        free = cache.compute_free_capacity(relative=False) + (self._prefixes.spare_bytes if self._prefixes else 0)
        return float(1.0 - free / (cache.num_sectors * cache.bytes_per_sector))

    @property
    def prefix_tokens(self) -> tuple[int, int]:
        """(prompt tokens so far, those of them that were found computed)."""
        return (0, 0) if self._prefixes is None else (self._prefixes.asked, self._prefixes.found)

    def _in_batch(self) -> list[Any]:
        return list(self._processor.inputs_and_outputs.requests_in_batch)

    def _sample(self, scores: Tensor, output_ids: Tensor) -> None:
        assert self._choose is not None
        asking = [row.request_id for row in self._rows if row.samples]
        tokens = self._choose(asking, scores[0, : len(asking)])
        output_ids[0, : len(asking)] = torch.tensor(tokens, dtype=output_ids.dtype, device=output_ids.device)


def _use_packed_attention(model: Any) -> bool:
    """Replaces the model's attention by ours where every layer does plain attention over the whole sequence."""
    config = model.config.get_text_config()
    if config._attn_implementation != "sdpa" or set(group_layers_by_attn_type(config)) != {FULL_ATTENTION}:
        return False
    model.set_attn_implementation(attention.NAME)
    return True


def _config(limits: BatchLimits) -> ContinuousBatchingConfig:
    """Gives every size: transformers would take seconds, and most of the memory, to find them."""
    return ContinuousBatchingConfig(
        page_size=limits.page_tokens,
        num_blocks=-(-limits.cache_tokens // limits.page_tokens),
        max_batch_tokens=limits.step_tokens,
        max_requests_per_batch=min(limits.requests, limits.step_tokens),
        max_blocks_per_request=0,
        # Off by default: a prompt that is computed in parts is rounded differently, so the last bit of an answer would
        # depend on earlier requests.
        allow_block_sharing=limits.reuse_prefixes,
        # Tokens are chosen in Python between two passes, so neither may run ahead of the other.
        use_async_batching=False,
        use_cuda_graph=False,
        seed=0,  # unused: each request has a generator of its own
        auto_switch_to_flash=False,  # would look for kernels on the network
    )


class _Nowhere:
    """In place of transformers' output router: results are read from the requests themselves."""

    def deliver(self, output: object) -> None:
        """Ignores a result."""

    def deliver_batch(self, outputs: object) -> None:
        """Ignores results."""

    def fail_and_deliver(self, state: RequestState, error: Exception) -> None:
        """Raises: only requests of transformers' own queue, which is not used, can get here."""
        raise RuntimeError(f"transformers refused request {state.request_id}: {error}") from error
