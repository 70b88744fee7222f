"""Whatever a request may ask for and whatever the model says: each row gets a token, or fails alone."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito_runtime.engine.protocol import Sampling
from kaito_runtime.engine.sampling import Sampler, choose
from kaito_runtime.errors import RequestError

VOCABULARY = 6
LOGITS = torch.tensor([0.0, 3.0, 2.0, 1.0, -1.0, 2.5])
LARGEST = torch.finfo(torch.float32).max
TINY = 5e-324  # the smallest positive float of Python


@dataclass
class Rules:
    """A grammar that allows the same tokens each time, or raises.

    Attributes:
        raises: Where: "allowed", "push", or nowhere.
        stuck: What it says after the first token.
    """

    tokens: frozenset[int] = frozenset(range(VOCABULARY))
    raises: str = ""
    stuck: str = ""

    def start(self) -> "Rules":
        return replace(self)

    def allowed(self) -> bytes:
        self._reach("allowed")
        return bytes([sum(1 << token for token in self.tokens)])

    def push(self, token: int) -> None:
        self._reach("push")
        assert token in self.tokens

    def _reach(self, where: str) -> None:
        if self.raises == where:
            raise ValueError("the grammar has a bug")


def outcomes(sampling: Sampling, logits: torch.Tensor = LOGITS, count: int = 20) -> list[Any]:
    sampler = Sampler(replace(sampling, seed=sampling.seed or 1))
    return [choose([sampler], logits[None])[0] for _ in range(count)]


@pytest.mark.parametrize("temperature", [0.0, TINY, 1e-40, 1e-20, 1e-6, 9.9e-6])
def test_temperature_near_zero_takes_the_most_likely(temperature: float) -> None:
    assert {token for token, _, _ in outcomes(Sampling(temperature=temperature))} == {1}


@pytest.mark.parametrize("spread", [1.0, 1e30, LARGEST])
def test_smallest_temperature_that_draws_does_not_overflow(spread: float) -> None:
    logits = LOGITS / 3 * spread
    assert {token for token, _, _ in outcomes(Sampling(temperature=1e-5), logits)} == {1}


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 2.0},
        {"temperature": 100.0},
        {"top_p": 1e-9},
        {"top_p": TINY},
        {"top_k": 2**70},
        {"min_p": 1.0},
        {"min_p": TINY},
        {"presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"presence_penalty": -2.0, "frequency_penalty": -2.0},
        {"logit_bias": dict.fromkeys(range(VOCABULARY), 100.0)},
        {"logit_bias": dict.fromkeys(range(VOCABULARY), -100.0)},
        {"logit_bias": {0: 100.0, 1: -100.0}},
        {"seed": -(2**63)},
        {"seed": 2**63 - 1},
        {"repetition_penalty": TINY},
        {"repetition_penalty": 100.0},
        {"min_tokens": 2**40},
        {"logprobs": 20},
        {"grammar": Rules(frozenset({4}))},
        {"grammar": Rules(frozenset({4})), "top_p": TINY, "temperature": 1e-5, "logit_bias": {4: -100.0}},
    ],
    ids=str,
)
def test_every_bound_is_served(asked: dict[str, Any]) -> None:
    for outcome in outcomes(Sampling(**asked)):
        assert not isinstance(outcome, RequestError), outcome
        assert 0 <= outcome[0] < VOCABULARY


def test_penalties_over_a_long_history_are_served() -> None:
    for penalty in (2.0, -2.0):
        sampling = Sampling(presence_penalty=penalty, frequency_penalty=penalty, temperature=1e-5)
        assert {type(outcome) for outcome in outcomes(sampling, count=2000)} == {tuple}


def test_bias_of_a_token_that_the_model_does_not_have_changes_nothing() -> None:
    plain = outcomes(Sampling())
    assert outcomes(Sampling(logit_bias={VOCABULARY: 100.0, 10**8: 100.0})) == plain


def test_log_probability_of_what_the_model_rules_out_can_be_written_as_json() -> None:
    logits = torch.full((VOCABULARY,), -math.inf)
    logits[2] = 0.0
    (token, logprob, top), *_ = outcomes(Sampling(logprobs=20), logits)
    assert (token, logprob, len(top)) == (2, 0.0, VOCABULARY)
    assert {value for _, value in top} == {0.0, -9999.0}


@pytest.mark.parametrize(
    ("rules", "logits", "words"),
    [
        (Rules(frozenset()), LOGITS, "no token may come next"),
        (Rules(frozenset({0})), LOGITS.index_fill(0, torch.tensor([0]), -math.inf), "no token may come next"),
        (Rules(stuck="too many states"), LOGITS, "too many states"),
        (Rules(raises="allowed"), LOGITS, "no token could be chosen: ValueError: the grammar has a bug"),
        (Rules(raises="push"), LOGITS, "no token could be chosen: ValueError: the grammar has a bug"),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_row_without_a_token_fails_alone_and_says_why(
    rules: Rules, logits: torch.Tensor, words: str, temperature: float
) -> None:
    rows = [Sampler(Sampling(temperature=temperature, grammar=grammar)) for grammar in (None, rules, None)]
    first, second, third = choose(rows, torch.stack([LOGITS, logits, LOGITS]))
    assert isinstance(second, RequestError)
    assert words in str(second)
    assert not isinstance(first, RequestError) and not isinstance(third, RequestError)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("mixed", [False, True])
def test_row_whose_logits_are_not_finite_fails_alone(value: float, mixed: bool) -> None:
    wrong = LOGITS.index_fill(0, torch.tensor([3]), value)
    rows = [Sampler(Sampling(temperature=0, logprobs=0 if mixed else None)) for _ in range(3)]
    first, second, third = choose(rows, torch.stack([LOGITS, wrong, LOGITS]))
    assert isinstance(second, RequestError)
    assert second.code == "not_finite"
    assert [row[0] for row in (first, third) if not isinstance(row, RequestError)] == [1, 1]


TEMPERATURES = st.sampled_from([0.0, TINY, 1e-40, 1e-6, 1e-5, 1.0, 2.0, 100.0]) | st.floats(0, 100)
SAMPLINGS = st.builds(
    Sampling,
    temperature=TEMPERATURES,
    top_p=st.sampled_from([TINY, 1e-9, 1 - 1e-9, 1.0]) | st.floats(0, 1, exclude_min=True),
    top_k=st.sampled_from([0, 1, 2**31, 2**70]) | st.integers(0, VOCABULARY + 1),
    min_p=st.sampled_from([0.0, TINY, 1.0]) | st.floats(0, 1),
    seed=st.sampled_from([-(2**63), -1, 0, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1),
    presence_penalty=st.sampled_from([0.0, -2.0, 2.0]) | st.floats(-2, 2),
    frequency_penalty=st.sampled_from([0.0, -2.0, 2.0]) | st.floats(-2, 2),
    repetition_penalty=st.sampled_from([1.0, TINY, 100.0]) | st.floats(0, 100, exclude_min=True),
    min_tokens=st.integers(0, 3),
    logit_bias=st.dictionaries(st.integers(0, VOCABULARY), st.sampled_from([-100.0, 100.0]) | st.floats(-100, 100)),
    logprobs=st.none() | st.integers(0, 20),
    grammar=st.none()
    | st.builds(
        Rules,
        st.frozensets(st.integers(0, VOCABULARY - 1)),
        st.sampled_from(["", "", "", "allowed", "push"]),
        st.sampled_from(["", "", "stuck"]),
    ),
)
VALUES = st.sampled_from([0.0, 1.0, -math.inf, LARGEST, -LARGEST, 1e-40]) | st.floats(-1e4, 1e4, width=32)
ROWS = st.lists(VALUES, min_size=VOCABULARY, max_size=VOCABULARY) | st.lists(
    VALUES | st.sampled_from([math.nan, math.inf]), min_size=VOCABULARY, max_size=VOCABULARY
)


def could_be_served(sampling: Sampling, logits: list[float]) -> bool:
    rules: Any = sampling.grammar
    if not math.isfinite(max(logits)) or any(map(math.isnan, logits)):
        return False
    if rules is None:
        return True
    return not (rules.raises or rules.stuck) and any(logits[token] > -math.inf for token in rules.tokens)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(SAMPLINGS, ROWS), min_size=1, max_size=5))
def test_row_gets_a_token_that_it_may_have_or_fails_alone(rows: list[tuple[Sampling, list[float]]]) -> None:
    samplers = [Sampler(sampling) for sampling, _ in rows]
    alone = [Sampler(sampling) for sampling, _ in rows]
    logits = torch.tensor([row for _, row in rows])
    for _ in range(3):
        together = choose(samplers, logits)
        assert len(together) == len(rows)
        for index, (sampling, row) in enumerate(rows):
            outcome = together[index]
            (same,) = choose([alone[index]], logits[index : index + 1])
            assert str(same) == str(outcome)
            if isinstance(outcome, RequestError):
                assert not could_be_served(sampling, row)
                continue
            assert could_be_served(sampling, row)
            token, logprob, top = outcome
            assert 0 <= token < VOCABULARY
            assert row[token] > -math.inf
            assert (logprob is None) == (sampling.logprobs is None)
            assert all(math.isfinite(value) for value in (logprob or 0.0, *(value for _, value in top)))
