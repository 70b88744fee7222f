"""What is served against the truth: PEFT's own deltas summed into fp32 weights, run by transformers alone."""

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from kaito_runtime.engine.batching import Batcher
from kaito_runtime.engine.protocol import Job
from kaito_runtime.model.load import load_model
from kaito_runtime.testing.harness import GREEDY, LIMITS, Harness, running
from kaito_runtime.testing.models import load_fp32, merged, save_adapter, save_model

TOLERANCE = 1e-4
STRENGTHS = [(0.8, 0.5), (1.0, -1.0), (2.0, 0.0), (0.3, 1.7)]
PROMPT = tuple(range(40, 57))

LLAMA_TARGETS = ["q_proj", "v_proj"]
FALCON_TARGETS = ["query_key_value"]


def write_adapters(model: Path, folder: Path, attention: list[str], patterned: str) -> dict[str, Path]:
    """Writes pairs of adapters of every kind whose scaling is not simply alpha over rank."""
    return {
        "small": save_adapter(model, folder / "small", seed=1, r=4, lora_alpha=8, target_modules=attention),
        "large": save_adapter(model, folder / "large", seed=2, r=20, lora_alpha=16, target_modules="all-linear"),
        "rslora": save_adapter(
            model, folder / "rslora", seed=3, r=16, lora_alpha=8, use_rslora=True, target_modules="all-linear"
        ),
        "patterns": save_adapter(
            model,
            folder / "patterns",
            seed=4,
            r=8,
            lora_alpha=8,
            target_modules="all-linear",
            rank_pattern={patterned: 3},
            alpha_pattern={patterned: 12},
        ),
    }


class Served:
    """One architecture, served, and its adapters."""

    def __init__(self, model: Path, harness: Harness, folders: dict[str, Path]) -> None:
        self.model = model
        self.harness = harness
        self.folders = folders
        self.versions = {name: harness.load(name, folder) for name, folder in folders.items()}

    def check(self, strengths: dict[str, float], prompt: tuple[int, ...] = PROMPT, steps: int = 4) -> None:
        """Compares the logits of every step with the merged model's on the same tokens."""
        self.harness.logits.clear()
        live = {self.versions[name]: strength for name, strength in strengths.items()}
        tokens = self.harness.answer(prompt, live, steps)
        truth_model = merged(self.model, {self.folders[name]: strength for name, strength in strengths.items()})
        with torch.no_grad():
            truth = truth_model(torch.tensor([[*prompt, *tokens[:-1]]])).logits[0, len(prompt) - 1 :]
        served = torch.stack(self.harness.logits[prompt])
        assert served.shape == truth.shape
        assert (served - truth).abs().max() <= TOLERANCE


@pytest.fixture(scope="module", params=["llama", "falcon-old", "falcon-new"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    llama = request.param == "llama"
    if not llama:
        pytest.importorskip("kaito_falcon.recipe", reason="Falcon needs its package's recipe")
    model = save_model(tmp_path_factory.mktemp("model"), request.param)
    patterned = "down_proj" if llama else "dense_4h_to_h"
    folders = write_adapters(
        model, tmp_path_factory.mktemp("adapters"), LLAMA_TARGETS if llama else FALCON_TARGETS, patterned
    )
    with running(model, end_tokens=()) as harness:
        yield Served(model, harness, folders)


@pytest.mark.parametrize("strengths", STRENGTHS)
@pytest.mark.parametrize(
    "pair", list(itertools.combinations(["small", "large", "rslora", "patterns"], 2)), ids="-".join
)
def test_sum_of_two_adapters_is_exact(served: Served, pair: tuple[str, str], strengths: tuple[float, float]) -> None:
    served.check(dict(zip(pair, strengths, strict=True)), steps=2)


def test_four_adapters_at_once_are_exact_over_a_long_answer(served: Served) -> None:
    served.check({"small": 0.5, "large": -0.25, "rslora": 0.75, "patterns": 1.5}, steps=12)


def test_prompt_longer_than_a_step_is_exact(served: Served) -> None:
    served.check({"small": 0.8, "rslora": 0.5}, tuple(i % 250 for i in range(150)))


def test_an_adapter_changes_the_logits(served: Served) -> None:
    """Otherwise all of the above could pass without any adapter being applied."""
    served.harness.logits.clear()
    served.harness.answer(PROMPT, {}, 1)
    served.harness.answer(PROMPT, {served.versions["small"]: 1.0}, 1)
    base, adapted = served.harness.logits[PROMPT]
    assert (base - adapted).abs().max() > 100 * TOLERANCE


def test_strength_zero_and_no_adapter_are_the_base_model_bit_for_bit(served: Served) -> None:
    harness = served.harness
    with running(served.model, end_tokens=()) as bare:  # an engine that never saw an adapter
        bare.answer(PROMPT, {}, 5)
        harness.logits.clear()
        harness.answer(PROMPT, {}, 5)
        harness.answer(PROMPT, dict.fromkeys(served.versions.values(), 0.0), 5)
        base = torch.stack(bare.logits[PROMPT])
        none, zero = torch.stack(harness.logits[PROMPT]).split(5)
        assert torch.equal(none, base)
        assert torch.equal(zero, base)


def test_rows_without_adapters_are_the_untouched_model_bit_for_bit_beside_others_that_have_some(served: Served) -> None:
    prompts = {"none": PROMPT, "zero": tuple(range(100, 111)), "adapted": tuple(range(60, 75))}
    steps = 4
    plain: dict[str, list[torch.Tensor]] = {name: [] for name in prompts}

    def choose(names: Sequence[str], logits: torch.Tensor) -> list[int]:
        for name, row in zip(names, logits, strict=True):
            plain[name].append(row.clone())
        return list(logits.argmax(-1).tolist())

    batcher = Batcher(load_model(served.model, dtype="float32").model, LIMITS)
    for name, prompt in prompts.items():
        batcher.add(name, prompt, steps, ())
    while batcher.prepare():
        batcher.step(choose)

    harness, versions = served.harness, served.versions
    harness.logits.clear()
    harness.engine._worker.submit(lambda: time.sleep(0.2))  # so that all three are in the first pass
    adapted = {versions["large"]: 2.0, versions["rslora"]: -1.0}
    sets = {"none": {}, "zero": dict.fromkeys(versions.values(), 0.0), "adapted": adapted}
    harness.tokens([Job(prompts[name], steps, sets[name], GREEDY) for name in prompts])
    rows = {name: torch.stack(harness.logits[prompt]) for name, prompt in prompts.items()}
    assert torch.equal(rows["none"], torch.stack(plain["none"]))
    assert torch.equal(rows["zero"], torch.stack(plain["zero"]))
    assert not torch.equal(rows["adapted"], torch.stack(plain["adapted"]))


def test_mixed_batch_gives_each_request_what_it_gets_alone(served: Served) -> None:
    names = list(served.versions)
    sets = [{names[i % 4]: 0.3 + 0.1 * i, names[(i + 1 + i // 4) % 4]: 1.0 - 0.15 * i} for i in range(15)] + [{}]
    jobs = [
        Job(
            [(7 * i + j) % 250 for j in range(9 + i)],
            8,
            {served.versions[name]: strength for name, strength in chosen.items()},
            GREEDY,
        )
        for i, chosen in enumerate(sets)
    ]
    together = [[token.id for token in tokens] for tokens in served.harness.tokens(jobs)]
    alone = [[token.id for token in served.harness.tokens([job])[0]] for job in jobs]
    assert together == alone
    assert len({tuple(tokens) for tokens in together}) > 8


def test_base_row_of_a_mixed_batch_has_the_logits_of_an_unadapted_model(served: Served) -> None:
    harness = served.harness
    harness.logits.clear()
    other = Job(list(range(100, 117)), 3, {served.versions["large"]: 2.0}, GREEDY)
    harness.tokens([Job(PROMPT, 3, {}, GREEDY), other])
    tokens = [int(row.argmax()) for row in harness.logits[PROMPT]]
    with torch.no_grad():
        truth = load_fp32(served.model)(torch.tensor([[*PROMPT, *tokens[:-1]]])).logits[0, len(PROMPT) - 1 :]
    assert (torch.stack(harness.logits[PROMPT]) - truth).abs().max() <= TOLERANCE
