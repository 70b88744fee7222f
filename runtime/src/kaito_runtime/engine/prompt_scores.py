"""Log-probabilities of a prompt's tokens, from the logits of the passes that compute the prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kaito_runtime.engine.protocol import PromptToken
from kaito_runtime.errors import RequestError

__all__ = ["LEAST_LOGPROB", "score_tokens"]

LEAST_LOGPROB = -9999.0
"""OpenAI's figure for a token that cannot come; JSON has no minus infinity."""
_CHUNK = 16  # rows of the whole vocabulary that are normalised at once


def score_tokens(tokens: Sequence[int], logits: Tensor, alternatives: int) -> list[PromptToken]:
    """Returns how likely tokens were.

    Args:
        tokens: Tokens of a prompt, in order.
        logits: What each was predicted by, the logits after the token before it.
        alternatives: Number of the most likely tokens to return in the place of each.

    Shapes:
        logits: [len(tokens), V], float32.

    Raises:
        RequestError: The logits are not finite.
    """
    scored = []
    for start in range(0, len(tokens), _CHUNK):
        rows = logits[start : start + _CHUNK].log_softmax(-1)
        ids = torch.tensor(tokens[start : start + _CHUNK], device=rows.device)
        own = rows.gather(1, ids[:, None])
        values, most_likely = rows.topk(min(alternatives, rows.shape[1]), -1)
        for token, logprob, of_top, top in zip(
            ids.tolist(), own[:, 0].tolist(), values.tolist(), most_likely.tolist(), strict=True
        ):
            if math.isnan(logprob):
                message = "the logits are not finite; the strengths may be too large for these adapters"
                raise RequestError(message, status=500, code="not_finite")
            alternatives_ = tuple((one, max(value, LEAST_LOGPROB)) for one, value in zip(top, of_top, strict=True))
            scored.append(PromptToken(token, max(logprob, LEAST_LOGPROB), alternatives_))
    return scored
