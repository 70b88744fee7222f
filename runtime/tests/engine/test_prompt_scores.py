"""Log-probabilities of a prompt's tokens."""

import math

import pytest
import torch

from kaito_runtime.engine.prompt_scores import LEAST_LOGPROB, score_tokens
from kaito_runtime.errors import RequestError


@pytest.mark.parametrize("count", [1, 16, 17, 40])
def test_each_token_has_its_log_probability_and_the_most_likely_ones(count: int) -> None:
    logits = torch.randn(count, 50, generator=torch.Generator().manual_seed(0))
    tokens = [(7 * i) % 50 for i in range(count)]
    truth = logits.double().log_softmax(-1)
    for row, (token, scored) in enumerate(zip(tokens, score_tokens(tokens, logits, 3), strict=True)):
        assert scored.id == token
        assert scored.logprob == pytest.approx(float(truth[row, token]), abs=1e-5)
        assert [one for one, _ in scored.top] == truth[row].topk(3).indices.tolist()


def test_no_alternatives_and_more_than_there_are() -> None:
    logits = torch.zeros(1, 3)
    assert score_tokens([1], logits, 0)[0].top == ()
    assert len(score_tokens([1], logits, 20)[0].top) == 3


def test_a_token_that_cannot_come_has_a_number_that_json_can_say() -> None:
    (scored,) = score_tokens([1], torch.tensor([[0.0, -math.inf, 0.0]]), 3)
    assert scored.logprob == LEAST_LOGPROB
    assert scored.top[-1] == (1, LEAST_LOGPROB)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(RequestError, match="not finite"):
        score_tokens([0], torch.tensor([[0.0, bad, 0.0]]), 1)
