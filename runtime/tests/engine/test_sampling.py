from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from kaito_runtime.engine.protocol import Sampling
from kaito_runtime.engine.sampling import Choice, Sampler, choose
from kaito_runtime.errors import RequestError

CPU = torch.device("cpu")
LOGITS = torch.tensor([0.0, 3.0, 2.0, 1.0, -1.0])


def draws(sampling: Sampling, count: int = 300) -> list[int]:
    sampler = Sampler(sampling, CPU)
    return [sampler.choose(LOGITS)[0] for _ in range(count)]


def chosen(samplers: Sequence[Sampler], logits: torch.Tensor) -> list[Choice]:
    found = choose(samplers, logits)
    assert not [outcome for outcome in found if isinstance(outcome, RequestError)]
    return found  # type: ignore[return-value]


def test_temperature_zero_takes_the_most_likely() -> None:
    assert set(draws(Sampling(temperature=0))) == {1}


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"top_k": 2}, {1, 2}),
        ({"top_p": 0.7}, {1, 2}),
        ({"top_p": 0.01}, {1}),
        ({"min_p": 0.3}, {1, 2}),
        ({"temperature": 0.01}, {1}),
        ({"temperature": 50.0}, {0, 1, 2, 3, 4}),
        ({"logit_bias": {0: 100.0}}, {0}),
    ],
)
def test_limits_keep_only_what_they_say(limits: dict[str, float], kept: set[int]) -> None:
    assert set(draws(replace(Sampling(seed=1), **limits))) == kept  # type: ignore[arg-type]


def test_seed_repeats_the_draws_whatever_else_runs() -> None:
    alone = draws(Sampling(seed=5), 20)
    first, second = Sampler(Sampling(seed=5), CPU), Sampler(Sampling(seed=6), CPU)
    together = [[token for token, _, _ in chosen([first, second], LOGITS.repeat(2, 1))] for _ in range(20)]
    assert [row[0] for row in together] == alone
    assert [row[1] for row in together] == draws(Sampling(seed=6), 20)
    assert alone != draws(Sampling(seed=6), 20)


def test_draws_follow_the_probabilities() -> None:
    tokens = draws(Sampling(seed=0), 4000)
    found = torch.tensor([tokens.count(token) / 4000 for token in range(5)])
    assert (found - LOGITS.softmax(-1)).abs().max() < 0.03


def test_penalties_move_away_from_tokens_of_the_answer() -> None:
    assert draws(Sampling(temperature=0, presence_penalty=1.5), 4) == [1, 2, 1, 1]
    assert draws(Sampling(temperature=0, frequency_penalty=0.6), 6) == [1, 1, 2, 1, 2, 1]


def test_logprobs_are_those_of_the_unmodified_logits() -> None:
    truth = LOGITS.log_softmax(-1)
    sampler = Sampler(Sampling(temperature=0, logprobs=2, logit_bias={4: 100.0}), CPU)
    token, logprob, top = sampler.choose(LOGITS)
    assert (token, logprob) == (4, pytest.approx(float(truth[4])))
    assert [entry[0] for entry in top] == [1, 2]
    assert top[0][1] == pytest.approx(float(truth[1]))


def test_greedy_rows_are_chosen_together_and_alike() -> None:
    logits = torch.stack([LOGITS, LOGITS.flip(0)])
    plain = [Sampler(Sampling(temperature=0), CPU) for _ in range(2)]
    mixed = [Sampler(Sampling(temperature=0), CPU), Sampler(Sampling(temperature=0, logprobs=0), CPU)]
    assert [token for token, _, _ in chosen(plain, logits)] == [1, 3]
    assert [token for token, _, _ in chosen(mixed, logits)] == [1, 3]


def test_most_likely_is_what_torch_says_it_is() -> None:
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))
    logits[1] = -float("inf")
    logits[1, 7] = -3e38
    logits[3] = 1.0  # the first of equals, alone and together: an answer must not depend on who else is there
    wanted = logits.argmax(-1).tolist()
    assert (wanted[1], wanted[3]) == (7, 0)
    greedy = [Sampler(Sampling(temperature=0), CPU) for _ in logits]
    assert [token for token, _, _ in chosen(greedy, logits)] == wanted
    assert [Sampler(Sampling(temperature=0), CPU).choose(row)[0] for row in logits] == wanted
