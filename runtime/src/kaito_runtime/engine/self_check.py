"""A check at the start that a model computes in continuous batches what it computes alone.

A model whose attention does not go through transformers' interface ignores the paged cache without an error, and every
token of an answer after the first would be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kaito_runtime.errors import ModelLoadError

__all__ = ["BatchCheck"]

# Tokens of the prompts of two requests in one batch, and of each answer; the check chooses the tokens itself.
_LENGTHS, _FORCED = (9, 5), 4
# Relative errors above rounding: narrow types lose some percent over many layers, ignored keys cost tens of percent.
_TOLERANCE = {torch.float32: 0.01, torch.float64: 0.01}
_NARROW_TOLERANCE = 0.15


class BatchCheck:
    """Two requests, and the logits of each computed alone. Must be made before the model's attention is replaced.

    Args:
        model: A transformers model in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        self._name = type(model).__name__
        self._dtype = model.dtype
        ids = min(int(model.config.get_text_config().vocab_size), 251)
        self._sequences = [[(7 * i + 3 * r + 1) % ids for i in range(n + _FORCED)] for r, n in enumerate(_LENGTHS)]
        self._truth: list[Tensor] = []
        self._seen: dict[str, list[Tensor]] = {}
        with torch.inference_mode():
            for sequence in self._sequences:
                logits = model(input_ids=torch.tensor([sequence], device=model.device), use_cache=False).logits
                self._truth.append(logits[0].float())

    def choose(self, request_ids: Sequence[str], logits: Tensor) -> list[int]:
        """Returns the next tokens of the two requests; takes the place of sampling."""
        tokens = []
        for request_id, row in zip(request_ids, logits, strict=True):
            index, seen = int(request_id), self._seen.setdefault(request_id, [])
            seen.append(row.float().clone())
            tokens.append(self._sequences[index][min(_LENGTHS[index] + len(seen) - 1, len(self._sequences[index]) - 1)])
        return tokens

    def run(self, batcher: Any) -> None:
        """Computes both requests in one batch and compares the logits of each token after the first.

        Raises:
            ModelLoadError: They differ by more than rounding.
        """
        for index, length in enumerate(_LENGTHS):
            batcher.add(str(index), self._sequences[index][:length], _FORCED, ())
        while batcher.prepare():
            batcher.step(self.choose)
        errors = []
        for index, length in enumerate(_LENGTHS):
            for i, got in enumerate(self._seen[str(index)][1:], start=length):
                wanted = self._truth[index][i]
                errors.append(((got - wanted).norm() / (wanted - wanted.mean()).norm()).item())
        # The median: in a mixture of experts, rounding may select another expert for a single token.
        error = sorted(errors)[len(errors) // 2]
        if not error <= _TOLERANCE.get(self._dtype, _NARROW_TOLERANCE):
            raise ModelLoadError(
                f"{self._name} computes other logits in a batch than alone (they differ by {error:.0%}): its attention "
                "does not go through transformers' attention interface. A model package can provide attention that "
                "does in its recipe, as kaito-falcon does (kaito_runtime.model.recipe)"
            )
