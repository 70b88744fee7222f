"""Choosing tokens: from the logits of one step to the tokens of its rows. No model, no scheduling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from kaito_runtime.engine import Sampling

__all__ = ["Choice", "Sampler", "choose", "sound_rows"]

Choice = tuple[int, float | None, tuple[tuple[int, float], ...]]


class Sampler:
    """Chooses the tokens of one sequence.

    Args:
        sampling: What the request asked for.
        device: Where the logits are.
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.sampling = sampling
        self.greedy = sampling.temperature == 0
        self.plain = self.greedy and not (
            sampling.presence_penalty
            or sampling.frequency_penalty
            or sampling.logit_bias
            or sampling.logprobs is not None
        )
        self._seen: Counter[int] = Counter()
        self._warpers = _warpers(sampling)
        self._random = torch.Generator(device=device)
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> Choice:
        """Returns the next token, its log-probability and the alternatives.

        Shapes:
            logits: [V], float32.
        """
        adjusted = self._adjust(logits)
        if self.greedy:
            token = int(adjusted.argmax())
        else:
            finite = adjusted.nan_to_num()  # rows that are not sound fail, but not by an error in here
            scores = self._warpers(torch.empty((1, 0), dtype=torch.long), finite.unsqueeze(0))
            token = int(torch.multinomial(scores.softmax(-1), 1, generator=self._random))
        self._seen[token] += 1
        if self.sampling.logprobs is None:
            return token, None, ()
        logprobs = logits.log_softmax(-1)
        values, tokens = logprobs.topk(self.sampling.logprobs)
        return token, float(logprobs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True))

    def _adjust(self, logits: Tensor) -> Tensor:
        wanted = self.sampling
        changes = dict(wanted.logit_bias)
        if wanted.presence_penalty or wanted.frequency_penalty:
            for token, count in self._seen.items():
                penalty = wanted.presence_penalty + wanted.frequency_penalty * count
                changes[token] = changes.get(token, 0.0) - penalty
        if not changes:
            return logits
        adjusted = logits.clone()
        tokens = torch.tensor(list(changes), device=logits.device)
        adjusted[tokens] += torch.tensor(list(changes.values()), device=logits.device, dtype=logits.dtype)
        return adjusted


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList()
    if sampling.temperature not in (0, 1):
        warpers.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers


def choose(samplers: Sequence[Sampler], logits: Tensor) -> list[Choice]:
    """Returns the next token of every row.

    Shapes:
        logits: [len(samplers), V], float32.
    """
    if all(sampler.plain for sampler in samplers):  # one reduction and one transfer for the whole batch
        return [(token, None, ()) for token in logits.argmax(-1).tolist()]
    return [sampler.choose(row) for sampler, row in zip(samplers, logits, strict=True)]


def sound_rows(logits: Tensor) -> list[bool]:
    """Returns for every row whether it has no NaN and no infinity above.

    Shapes:
        logits: [n, V].
    """
    return [bool(value) for value in logits.amax(-1).isfinite().tolist()]
