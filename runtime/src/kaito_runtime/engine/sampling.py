"""Choosing tokens: from the logits of a step to the next token of each row. No model, no scheduling."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from kaito_runtime.engine.protocol import Sampling
from kaito_runtime.errors import RequestError, one_line

__all__ = ["Choice", "Sampler", "choose"]

log = logging.getLogger(__name__)

Choice = tuple[int, float | None, tuple[tuple[int, float], ...]]
_LEAST_LOGPROB = -9999.0  # OpenAI's figure for a token that cannot come; JSON has no minus infinity


class Sampler:
    """Chooses the tokens of one sequence.

    Args:
        sampling: What the request asked for.
        device: Where the logits are.
    """

    def __init__(self, sampling: Sampling, device: torch.device) -> None:
        self.sampling = sampling
        self.plain = sampling.greedy and not (
            sampling.presence_penalty
            or sampling.frequency_penalty
            or sampling.logit_bias
            or sampling.logprobs is not None
            or sampling.grammar is not None
        )
        self._grammar = None if sampling.grammar is None else sampling.grammar.start()
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
            logits: [V], float32; the largest is finite.

        Raises:
            RequestError: The answer cannot go on within the grammar.
        """
        adjusted = self._adjust(logits)
        if self._grammar is not None:
            adjusted = _only(self._grammar.allowed(), adjusted)
            if adjusted.amax() == -math.inf:
                raise _stuck(self._grammar.stuck or "no token may come next")
        token = _most_likely(adjusted) if self.sampling.greedy else self._draw(adjusted)
        self._seen[token] += 1
        if self._grammar is not None:
            self._grammar.push(token)
            if self._grammar.stuck:
                raise _stuck(self._grammar.stuck)
        if self.sampling.logprobs is None:
            return token, None, ()
        logprobs = logits.log_softmax(-1).clamp_min(_LEAST_LOGPROB)
        values, tokens = logprobs.topk(min(self.sampling.logprobs, len(logits)))
        return token, float(logprobs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True))

    def _adjust(self, logits: Tensor) -> Tensor:
        wanted = self.sampling
        # A token outside the vocabulary would be an error on a CPU, and end the process on a GPU.
        changes = {token: bias for token, bias in wanted.logit_bias.items() if token < len(logits)}
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

    def _draw(self, logits: Tensor) -> int:
        scores = logits.unsqueeze(0)
        if self.sampling.temperature != 1:  # shifted to a largest score of 0, which no temperature makes infinite
            scores = (scores - scores.amax()) / self.sampling.temperature
        scores = self._warpers(torch.empty((1, 0), dtype=torch.long), scores)
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._random))


def _most_likely(logits: Tensor) -> Any:
    """Returns the index of the largest logit of each row, in lists nested as the rows are.

    Shapes:
        logits: [..., V].
    """
    if logits.device.type == "cpu":  # torch takes ten times as long there: 2.4 ms for [32, 49152], numpy 0.2 ms
        return logits.numpy().argmax(-1).tolist()
    return logits.argmax(-1).tolist()


def _only(allowed: bytes, logits: Tensor) -> Tensor:
    """Returns the logits, with minus infinity for tokens that are not allowed and the padding of the vocabulary."""
    mask = torch.frombuffer(bytearray(allowed), dtype=torch.uint8)[: len(logits)].bool()
    forbidden = torch.ones(len(logits), dtype=torch.bool)
    forbidden[: len(mask)] = ~mask
    return logits.masked_fill(forbidden.to(logits.device), -math.inf)


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList()
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers


def choose(samplers: Sequence[Sampler], logits: Tensor) -> list[Choice | RequestError]:
    """Returns the next token of every row, or the error that ends its request. A row's error leaves the others alone.

    Shapes:
        logits: [len(samplers), V], float32.
    """
    sound = logits.amax(-1).isfinite().tolist()  # False where a logit is NaN or plus infinity
    if all(sampler.plain for sampler in samplers):  # one reduction and one transfer for the whole batch
        return [
            (token, None, ()) if good else _not_finite()
            for token, good in zip(_most_likely(logits), sound, strict=True)
        ]
    return [
        _choose_alone(sampler, row) if good else _not_finite()
        for sampler, row, good in zip(samplers, logits, sound, strict=True)
    ]


def _choose_alone(sampler: Sampler, logits: Tensor) -> Choice | RequestError:
    try:
        return sampler.choose(logits)
    except RequestError as error:
        return error
    except Exception as error:  # a bug here or in a grammar must not fail the other requests of the batch
        log.exception("no token could be chosen for a request; it fails")
        return RequestError(f"no token could be chosen: {one_line(error)}", status=500, code="sampling_failed")


def _not_finite() -> RequestError:
    message = "the logits are not finite; the strengths may be too large for these adapters"
    return RequestError(message, status=500, code="not_finite")


def _stuck(why: str) -> RequestError:
    message = f"response_format: the answer cannot go on: {why}; use a simpler schema"
    return RequestError(message, code="schema_too_complex", param="response_format")
