"""A check at the start that a model computes in batches what it computes alone.

A model whose attention does not go through transformers' interface ignores the paged cache without an error, and every
token of an answer after the first would be wrong. Others differ only beyond a length: where the window of their
attention ends, or another rotary table begins. So the check has a sequence on both sides of every such length that the
model's configuration names, of a block of the cache, and of a pass.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kaito_runtime.errors import ModelLoadError
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.model.rope import RotaryTables

__all__ = ["BatchCheck"]

log = logging.getLogger(__name__)

# Tokens of the prompts of two requests in one batch, and of each answer; the check chooses the tokens itself.
_LENGTHS, _FORCED = (9, 5), 4
# Relative errors above rounding: narrow types lose some percent over many layers, ignored keys cost tens of percent.
_TOLERANCE = {torch.float32: 0.01, torch.float64: 0.01}
_NARROW_TOLERANCE = 0.15
# Multiplications that the longest sequence of the check may take: about a second each.
_CPU_PRODUCTS, _GPU_PRODUCTS = 1e11, 1e14


class BatchCheck:
    """Some requests, and the logits of each computed alone. Must be made before the model's attention is replaced.

    Args:
        model: A transformers model in evaluation mode.
        limits: Sizes of batch and cache.
        ropes: The rotary tables of the model that depend on length.
    """

    def __init__(self, model: Any, limits: BatchLimits, ropes: RotaryTables) -> None:
        self._name = type(model).__name__
        self._dtype = model.dtype
        config = model.config.get_text_config()
        ids = min(int(config.vocab_size), 251)
        self._lengths = [*_LENGTHS, *self._others(model, config, limits, ropes)]
        self._sequences = [[(7 * i + 3 * r + 1) % ids for i in range(n + _FORCED)] for r, n in enumerate(self._lengths)]
        self._truth: list[dict[int, Tensor]] = []
        self._seen: dict[str, list[Tensor]] = {}
        with torch.inference_mode():
            for length, sequence in zip(self._lengths, self._sequences, strict=True):
                tables: dict[int, list[int]] = {}  # a forward pass computes all tokens with the table of its length
                for tokens in range(length + 1, length + _FORCED):
                    tables.setdefault(ropes.table_of(tokens), []).append(tokens)
                truth: dict[int, Tensor] = {}
                for of_table in tables.values():
                    logits = _last_logits(model, sequence[: of_table[-1]], len(of_table))
                    truth |= dict(zip(of_table, logits, strict=True))
                self._truth.append(truth)

    def _others(self, model: Any, config: Any, limits: BatchLimits, ropes: RotaryTables) -> list[int]:
        """Returns the lengths of further prompts."""
        window = getattr(config, "sliding_window", None)
        named = {int(limits.page_tokens), *ropes.boundaries, *([int(window)] if window else ())}
        lengths = {*(boundary - 1 for boundary in named), limits.step_tokens + 1}
        products = _CPU_PRODUCTS if model.device.type == "cpu" else _GPU_PRODUCTS
        most = int(products / sum(p.numel() for p in model.parameters()))
        room = limits.cache_tokens - _FORCED
        positions = int(getattr(config, "max_position_embeddings", None) or room) - _FORCED
        found = []
        for length in sorted(lengths):
            if max(_LENGTHS) < length <= min(most, room, max(positions, *ropes.boundaries, 0)):
                found.append(length)
            elif length + 1 in named and length > most:
                log.info("the check at the start leaves out lengths around %d tokens: they would take long", length + 1)
        return found

    def choose(self, request_ids: Sequence[str], logits: Tensor) -> list[int]:
        """Returns the next tokens of the requests; takes the place of sampling."""
        tokens = []
        for request_id, row in zip(request_ids, logits, strict=True):
            index, seen = int(request_id), self._seen.setdefault(request_id, [])
            seen.append(row.float().clone())
            tokens.append(self._sequences[index][self._lengths[index] + len(seen) - 1])
        return tokens

    def run(self, batcher: Any) -> None:
        """Computes all requests in one batch and compares the logits of each token after the first.

        Raises:
            ModelLoadError: They differ by more than rounding.
        """
        self._seen.clear()
        for index, length in enumerate(self._lengths):
            batcher.add(str(index), self._sequences[index][:length], _FORCED, ())
        while batcher.prepare():
            batcher.step(self.choose)
        for index, length in enumerate(self._lengths):
            errors = []
            for tokens, got in enumerate(self._seen[str(index)][1:], start=length + 1):
                wanted = self._truth[index][tokens]
                errors.append(((got - wanted).norm() / (wanted - wanted.mean()).norm()).item())
            # The median: in a mixture of experts, rounding may select another expert for a single token.
            error = sorted(errors)[len(errors) // 2]
            if not error <= _TOLERANCE.get(self._dtype, _NARROW_TOLERANCE):
                raise ModelLoadError(
                    f"{self._name} computes other logits in a batch than alone (at {length + _FORCED} tokens they "
                    f"differ by {error:.0%}): its attention does not go through transformers' attention interface. A "
                    "model package can provide attention that does in its recipe, as kaito-falcon does "
                    "(kaito_runtime.model.recipe)"
                )


def _last_logits(model: Any, sequence: Sequence[int], count: int) -> Tensor:
    """Returns the logits of the last `count` tokens of one sequence, [count, V] in float32."""
    keep = {"logits_to_keep": count} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    logits: Tensor = model(input_ids=torch.tensor([sequence], device=model.device), use_cache=False, **keep).logits
    return logits[0, -count:].float()
