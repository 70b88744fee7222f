"""Rotary tables that depend on length: each sequence is computed as alone, whatever is beside it, at every length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from kaito_runtime.engine.batching import Batcher
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.model.rope import RotaryTables
from kaito_runtime.testing.models import load_fp32
from kaito_runtime.testing.truth import TINY, save_random

ORIGINAL = 32
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": ORIGINAL,
    "rope_theta": 10000.0,
    "factor": 8.0,
}
DYNAMIC = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 10000.0}
SHORT_TINY = {**TINY, "max_position_embeddings": ORIGINAL}
MODELS = {
    "longrope": lambda: Phi3ForCausalLM(
        Phi3Config(**TINY, original_max_position_embeddings=ORIGINAL, rope_parameters=LONG)
    ),
    "dynamic": lambda: LlamaForCausalLM(LlamaConfig(**SHORT_TINY, rope_parameters=DYNAMIC)),
}


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(MODELS[request.param](), tmp_path_factory.mktemp("rope") / request.param)


class Logits:
    """Takes the most likely tokens, and keeps the logits that they were chosen from."""

    def __init__(self) -> None:
        self.of: dict[str, list[torch.Tensor]] = {}

    def __call__(self, request_ids: Sequence[str], logits: torch.Tensor) -> list[int]:
        for request_id, row in zip(request_ids, logits, strict=True):
            self.of.setdefault(request_id, []).append(row.clone())
        return [int(token) for token in logits.argmax(-1)]


@pytest.mark.parametrize("reuse", [False, True], ids=["computed", "reused"])
def test_each_token_is_that_of_the_whole_sequence_alone(folder: Path, reuse: bool) -> None:
    limits = BatchLimits(cache_tokens=512, page_tokens=8, step_tokens=32, requests=4, reuse_prefixes=reuse)
    batcher = Batcher(load_fp32(folder), limits)
    prompts = {
        "crosses": [5 * i % 200 for i in range(28)],
        "long": [7 * i % 200 for i in range(60)],
        "short": list(range(40, 50)),
        "begins alike": [5 * i % 200 for i in range(34)],
    }
    logits = Logits()
    for name, prompt in prompts.items():
        batcher.add(name, prompt, 12, ())
    while batcher.prepare():
        batcher.step(logits)
    for name, prompt in prompts.items():
        tokens = [int(row.argmax()) for row in logits.of[name]]
        for k, row in enumerate(logits.of[name]):
            with torch.no_grad():  # a new model each time: a dynamic table depends on what was computed before
                truth = load_fp32(folder)(torch.tensor([[*prompt, *tokens[:k]]]), use_cache=False).logits[0, -1]
            assert (row - truth).abs().max() < 1e-4, f"{name} at {len(prompt) + k} tokens"


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"), reason="earlier ones go on without the keys of the prompt"
)
def test_answers_are_those_of_transformers_own_generate() -> None:
    """Which computes all keys again where the table changes, for Phi-3."""
    torch.manual_seed(7)
    model: Any = MODELS["longrope"]().eval()
    prompt = [5 * i % 200 for i in range(28)]
    with torch.no_grad():
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=-1)
    batcher = Batcher(model, BatchLimits(cache_tokens=512, page_tokens=8, step_tokens=64, requests=4))
    batcher.add("beside", [7 * i % 200 for i in range(60)], 20, ())
    batcher.add("a", prompt, 12, ())
    logits = Logits()
    while batcher.prepare():
        batcher.step(logits)
    assert [int(row.argmax()) for row in logits.of["a"]] == expected[0, 28:].tolist()


def test_most_models_have_one_table(tiny_llama: Path) -> None:
    ropes = RotaryTables(load_fp32(tiny_llama))
    assert ropes.boundaries == ()
    assert {ropes.table_of(length) for length in (1, 100, 10**6)} == {0}


def test_tables_by_length(folder: Path) -> None:
    ropes = RotaryTables(load_fp32(folder))
    assert ropes.boundaries == (ORIGINAL,)
    short, at, beyond, further = (ropes.table_of(length) for length in (1, ORIGINAL, ORIGINAL + 1, ORIGINAL + 2))
    assert short == at != beyond
    assert (beyond == further) == (folder.name == "longrope")
