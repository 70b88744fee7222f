"""Shared prefixes: found again under the same adapters, never under others, and never after a failure."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kaito_runtime.engine.batching import Batcher
from kaito_runtime.engine.runner import Runner
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.testing.models import load_fp32

LIMITS = BatchLimits(cache_tokens=512, page_tokens=8, step_tokens=64, requests=4, reuse_prefixes=True)
PROMPT = [3 + i % 40 for i in range(30)]


class Greedy:
    """Takes the most likely tokens and keeps them by request."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[int]] = {}

    def __call__(self, request_ids: Sequence[str], logits: torch.Tensor) -> list[int]:
        tokens: list[int] = logits.argmax(-1).tolist()
        for request_id, token in zip(request_ids, tokens, strict=True):
            self.tokens.setdefault(request_id, []).append(token)
        return tokens


def finish(batcher: Any, choose: Greedy) -> None:
    while batcher.prepare():
        batcher.step(choose)


@pytest.fixture
def choose() -> Greedy:
    return Greedy()


@pytest.fixture
def batcher(tiny_llama: Path) -> Batcher:
    return Batcher(load_fp32(tiny_llama), LIMITS)


def reused(
    batcher: Batcher, request_id: str, prompt: list[int], salt: Hashable = None, choose: Greedy | None = None
) -> int:
    """Runs a request and returns how many tokens of its prompt were not computed."""
    before = batcher.prefix_tokens[1]
    batcher.add(request_id, prompt, 4, [], salt)
    finish(batcher, choose or Greedy())
    return batcher.prefix_tokens[1] - before


def test_whole_pages_of_a_prompt_are_found_again(batcher: Batcher, choose: Greedy) -> None:
    assert reused(batcher, "a", PROMPT, choose=choose) == 0
    assert reused(batcher, "b", PROMPT, choose=choose) == 24, "three pages of 8; the last token is always computed"
    assert reused(batcher, "c", [*PROMPT[:16], 7, 7, 7]) == 16
    assert reused(batcher, "d", [9, *PROMPT[1:]]) == 0
    assert choose.tokens["a"] == choose.tokens["b"]
    assert batcher.prefix_tokens[0] == 3 * 30 + 19


def test_answers_are_found_again_as_prompts(batcher: Batcher, choose: Greedy) -> None:
    reused(batcher, "a", PROMPT, choose=choose)
    assert reused(batcher, "b", [*PROMPT, *choose.tokens["a"], 5, 6]) == 32


def test_other_salts_share_nothing(batcher: Batcher) -> None:
    reused(batcher, "base", PROMPT)
    assert reused(batcher, "one", PROMPT, ("sha256:a", 1.0)) == 0
    assert reused(batcher, "weaker", PROMPT, ("sha256:a", 0.5)) == 0
    assert reused(batcher, "again", PROMPT, ("sha256:a", 1.0)) == 24
    assert reused(batcher, "base again", PROMPT) == 24


def test_dropped_requests_leave_nothing_behind(batcher: Batcher) -> None:
    batcher.add("a", PROMPT, 50, [])
    batcher.prepare()
    batcher.step(Greedy())
    batcher.drop(["a"])
    assert batcher.cache_use == 0
    assert reused(batcher, "b", PROMPT) == 0


def test_what_is_only_kept_counts_as_free_and_gives_way(batcher: Batcher, choose: Greedy) -> None:
    reused(batcher, "a", PROMPT)
    assert batcher.cache_use == 0
    for i in range(40):  # more than the cache could keep
        batcher.add(f"x{i}", [i + 1] * 100, 20, [])
    finish(batcher, choose)
    assert all(len(choose.tokens[f"x{i}"]) == 20 for i in range(40))
    assert batcher.cache_use == 0


def test_off_by_default(tiny_llama: Path) -> None:
    batcher = Batcher(load_fp32(tiny_llama), BatchLimits(cache_tokens=256, page_tokens=8))
    assert reused(batcher, "a", PROMPT) == reused(batcher, "b", PROMPT) == 0


def test_strengths_and_content_decide_and_answers_stay_exact(
    tiny_llama: Path, tiny_adapters: Path, choose: Greedy
) -> None:
    """Each mix after each other, so that a wrong share would show, against a runner that shares nothing."""
    runners = []
    for limits in (LIMITS, BatchLimits(cache_tokens=512, page_tokens=8, step_tokens=64, requests=4)):
        model = load_fp32(tiny_llama)
        lora = inject_lora(model)
        runner = Runner(model, lora, limits)
        versions = [
            runner.load(read_adapter(folder, model, name=folder.name)) for folder in sorted(tiny_adapters.iterdir())
        ]
        runners.append((runner, versions))
    mixes = [{}, {0: 1.0}, {0: 0.5}, {1: 1.0}, {0: 1.0, 1: 0.5}, {0: 0.5, 1: 1.0}, {0: 0.0}]
    for round_ in range(2):
        for m, mix in enumerate(mixes):
            for r, (runner, versions) in enumerate(runners):
                runner.add(f"{r}-{round_}-{m}", PROMPT, 6, [], {versions[i]: s for i, s in mix.items()})
                finish(runner, choose)
            assert choose.tokens[f"0-{round_}-{m}"] == choose.tokens[f"1-{round_}-{m}"]
    asked, found = runners[0][0]._batcher.prefix_tokens
    assert (asked, found) == (14 * 30, 8 * 24), "the second round finds all, and strength 0 is the base model"
    assert len({tuple(choose.tokens[f"0-0-{m}"]) for m in range(6)}) == 6, "the mixes must differ"
