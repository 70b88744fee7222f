"""Whether a model computes in continuous batches what it computes alone.

One whose attention does not go through transformers' interface ignores the paged cache, without an error: each answer
after the first token would be wrong. So each model shows at start, on a few tokens, that it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kaito_runtime.errors import ModelLoadError

__all__ = ["BatchCheck"]

# Prompts of two requests in one batch, and the tokens that each is given whatever the logits say.
_LENGTHS, _FORCED = (9, 5), 4
# Relative error that rounding explains: narrow types lose some percent over many layers, forgotten keys several tenths.
_TOLERANCE = {torch.float32: 0.01, torch.float64: 0.01}
_NARROW_TOLERANCE = 0.15


class BatchCheck:
    """Computes the truth when it is made, which must be before the model's attention is switched.

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
        """Stands in for sampling while the check runs."""
        tokens = []
        for request_id, row in zip(request_ids, logits, strict=True):
            index, seen = int(request_id), self._seen.setdefault(request_id, [])
            seen.append(row.float().clone())
            tokens.append(self._sequences[index][min(_LENGTHS[index] + len(seen) - 1, len(self._sequences[index]) - 1)])
        return tokens

    def run(self, batcher: Any) -> None:
        """Answers both requests at once and compares the logits of each token after the first.

        Args:
            batcher: Chooses tokens by `choose`.

        Raises:
            ModelLoadError: They are not those of the model alone.
        """
        for index, length in enumerate(_LENGTHS):
            batcher.add(str(index), self._sequences[index][:length], _FORCED, ())
        while batcher.prepare():
            batcher.step()
        errors = []
        for index, length in enumerate(_LENGTHS):
            for i, got in enumerate(self._seen[str(index)][1:], start=length):
                wanted = self._truth[index][i]
                errors.append(((got - wanted).norm() / (wanted - wanted.mean()).norm()).item())
        # The median: where experts are chosen, rounding may choose another for a single token.
        error = sorted(errors)[len(errors) // 2]
        if not error <= _TOLERANCE.get(self._dtype, _NARROW_TOLERANCE):
            raise ModelLoadError(
                f"{self._name} does not compute in a batch what it computes alone (its logits are off by {error:.0%}): "
                "its attention does not go through transformers' attention interface. The recipe of a model package "
                "can bring one that does, as kaito-falcon's does (kaito_runtime.model.recipe)"
            )
