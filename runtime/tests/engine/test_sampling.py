from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from kaito_runtime.engine import sampling as module
from kaito_runtime.engine.protocol import Sampling
from kaito_runtime.engine.sampling import Choice, Sampler, choose
from kaito_runtime.errors import RequestError

LOGITS = torch.tensor([0.0, 3.0, 2.0, 1.0, -1.0])


def draws(sampling: Sampling, count: int = 300, **about: Any) -> list[int]:
    sampler = Sampler(sampling, **about)
    return [chosen([sampler], LOGITS[None])[0][0] for _ in range(count)]


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
    first, second = Sampler(Sampling(seed=5)), Sampler(Sampling(seed=6))
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
    sampler = Sampler(Sampling(temperature=0, logprobs=2, logit_bias={4: 100.0}))
    ((token, logprob, top),) = chosen([sampler], LOGITS[None])
    assert (token, logprob) == (4, pytest.approx(float(truth[4])))
    assert [entry[0] for entry in top] == [1, 2]
    assert top[0][1] == pytest.approx(float(truth[1]))


def test_greedy_rows_are_chosen_together_and_alike() -> None:
    logits = torch.stack([LOGITS, LOGITS.flip(0)])
    plain = [Sampler(Sampling(temperature=0)) for _ in range(2)]
    mixed = [Sampler(Sampling(temperature=0)), Sampler(Sampling(temperature=0, logprobs=0))]
    assert [token for token, _, _ in chosen(plain, logits)] == [1, 3]
    assert [token for token, _, _ in chosen(mixed, logits)] == [1, 3]


def test_most_likely_is_what_torch_says_it_is() -> None:
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(0))
    logits[1] = -float("inf")
    logits[1, 7] = -3e38
    logits[3] = 1.0  # the first of equals, alone and together: an answer must not depend on who else is there
    wanted = logits.argmax(-1).tolist()
    assert (wanted[1], wanted[3]) == (7, 0)
    greedy = [Sampler(Sampling(temperature=0)) for _ in logits]
    assert [token for token, _, _ in chosen(greedy, logits)] == wanted
    assert [chosen([Sampler(Sampling(temperature=0))], row[None])[0][0] for row in logits] == wanted


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"temperature": 0.3},
        {"temperature": 3.0},
        {"top_k": 3},
        {"top_k": 1},
        {"top_p": 0.8},
        {"top_p": 0.3, "temperature": 2.0},
        {"min_p": 0.2},
        {"top_k": 20, "top_p": 0.9, "min_p": 0.05, "temperature": 0.7},
        {"top_k": 5, "top_p": 0.5, "temperature": 1.5},
    ],
    ids=str,
)
def test_distribution_is_that_of_transformers_whatever_else_is_in_the_batch(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evenly spaced random numbers must meet each token as often as its probability says."""
    logits = 2 * torch.randn(40, generator=torch.Generator().manual_seed(0))
    warpers = LogitsProcessorList()
    if "top_k" in asked:
        warpers.append(TopKLogitsWarper(asked["top_k"]))
    if "top_p" in asked:
        warpers.append(TopPLogitsWarper(asked["top_p"]))
    if "min_p" in asked:
        warpers.append(MinPLogitsWarper(asked["min_p"]))
    scores = warpers(torch.empty((1, 0), dtype=torch.long), logits[None] / asked.get("temperature", 1.0))
    truth = scores.softmax(-1)[0]
    count = 1000
    numbers = iter([(i + 0.5) / count for i in range(count)] + [0.5] * 4)
    monkeypatch.setattr(Sampler, "uniform", lambda _: next(numbers))
    others = [Sampling(), Sampling(top_k=2), Sampling(top_p=0.1, temperature=9.0), Sampling(min_p=0.9)]
    rows = [Sampler(Sampling(**asked)) for _ in range(count)] + [Sampler(other) for other in others]
    tokens = torch.tensor([token for token, _, _ in chosen(rows, logits.repeat(len(rows), 1))[:count]])
    assert (tokens.bincount(minlength=40) / count - truth).abs().max() <= 1.001 / count


def test_repetition_penalty_is_that_of_transformers_over_prompt_and_answer() -> None:
    # 3 / 1.6 < 2 and 2 / 1.6 < 3 / 1.6: a token counts once, however often it was said.
    assert draws(Sampling(temperature=0, repetition_penalty=1.6), 4) == [1, 2, 1, 1]
    assert draws(Sampling(temperature=0, repetition_penalty=1.6), 2, prompt=[1, 1]) == [2, 1]
    assert draws(Sampling(temperature=0, repetition_penalty=0.01), 2, prompt=[3]) == [3, 3]
    negative = Sampler(Sampling(temperature=0, repetition_penalty=2.0), [4])
    logits = torch.tensor([[-3.0, -9.0, -9.0, -9.0, -2.0]])
    assert chosen([negative], logits)[0][0] == 0  # -2 becomes -4


def test_no_end_comes_before_the_fewest_tokens() -> None:
    asked = Sampling(temperature=0, min_tokens=2)
    assert draws(asked, 4, ends={1, 2, 99}) == [3, 3, 1, 1]
    drawn = draws(Sampling(seed=1, min_tokens=300), 300, ends={1})
    assert 1 not in drawn and len(set(drawn)) == 4


@dataclass
class Words:
    """Bans tokens that follow one another, as a bad word does."""

    pairs: dict[int, list[int]]
    said: list[int] = field(default_factory=list)

    def start(self) -> "Words":
        return Words(self.pairs)

    def banned(self) -> list[int]:
        return self.pairs.get(self.said[-1] if self.said else -1, [])

    def push(self, token: int) -> None:
        self.said.append(token)


def test_banned_tokens_never_come() -> None:
    bans = Words({-1: [1], 2: [2, 1, 4, 0]})
    assert draws(Sampling(temperature=0, bans=bans, logit_bias={1: 100.0}), 4) == [2, 3, 1, 1]


@dataclass
class Even:
    """A grammar that allows even tokens."""

    def start(self) -> "Even":
        return self

    def allowed(self) -> bytes:
        return bytes([0b10101])

    def push(self, token: int) -> None:
        assert token % 2 == 0

    stuck = ""


def test_grammar_may_end_before_the_fewest_tokens_only_where_nothing_else_is_left() -> None:
    assert draws(Sampling(temperature=0, grammar=Even(), min_tokens=9), 2, ends={2}) == [0, 0]
    assert draws(Sampling(temperature=0, grammar=Even(), min_tokens=9), 2, ends={0, 2, 4}) == [2, 2]


EVERYTHING: list[Sampling] = [
    Sampling(temperature=0),
    Sampling(seed=1),
    Sampling(seed=2, top_k=3, logprobs=2),
    Sampling(seed=3, top_p=0.5, repetition_penalty=1.3),
    Sampling(temperature=0, logprobs=0, presence_penalty=1.0),
    Sampling(seed=5, min_p=0.1, logit_bias={2: -1.0}),
    Sampling(seed=6, grammar=Even()),
    Sampling(seed=7, bans=Words({-1: [1], 2: [2]}), min_tokens=3, frequency_penalty=0.3),
]


def test_row_in_any_batch_is_chosen_as_alone() -> None:
    logits = torch.randn(20, len(EVERYTHING), 5, generator=torch.Generator().manual_seed(1))
    together = [Sampler(asked, [0, 3], {4}) for asked in EVERYTHING]
    alone = [Sampler(asked, [0, 3], {4}) for asked in EVERYTHING]
    for step in logits:
        assert chosen(together, step) == [chosen([one], step[i : i + 1])[0] for i, one in enumerate(alone)]


class Waits(TorchDispatchMode):
    """Counts operations whose result the host must wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")
        self.count += any(name in str(func) for name in waits)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize("asked", [EVERYTHING[:1], EVERYTHING[1:2], EVERYTHING], ids=["greedy", "drawn", "mixed"])
def test_host_waits_once_per_step(asked: list[Sampling], rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samplers = [Sampler(asked[i % len(asked)], [0, 3], {4}) for i in range(rows)]
    fetched = []
    fetch = module._fetch
    monkeypatch.setattr(module, "_fetch", lambda results: fetched.append(results) or fetch(results))
    with Waits() as waits:
        chosen(samplers, LOGITS.repeat(rows, 1))
    assert (len(fetched), waits.count) == (1, 0)
