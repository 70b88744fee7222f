"""Forward passes over many requests give what the model alone gives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from transformers import (
    AttentionInterface,
    BloomConfig,
    BloomForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from kaito_runtime.engine import batching
from kaito_runtime.engine.attention import NAME
from kaito_runtime.engine.batching import Batcher, Row
from kaito_runtime.engine.packing import CacheMemory
from kaito_runtime.errors import ModelLoadError
from kaito_runtime.kernels import paged_attention
from kaito_runtime.model.memory import BatchLimits, cache_bytes_per_token
from kaito_runtime.testing.models import load_fp32

LIMITS = BatchLimits(cache_tokens=256, page_tokens=8, step_tokens=16, requests=4)
GPT = {"vocab_size": 97, "n_embd": 32, "hidden_size": 32, "n_layer": 2, "n_head": 4}
SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


class Recorder(Batcher):
    """A batcher that takes the most likely tokens and writes down who asked."""

    def __init__(self, model: nn.Module, limits: BatchLimits = LIMITS) -> None:
        self.asked: list[list[str]] = []
        self.tokens: dict[str, list[int]] = {}
        self.scored: dict[str, list[torch.Tensor]] = {}
        self.most_rows = 0
        super().__init__(model, limits)

    def most_likely(self, request_ids: Sequence[str], logits: torch.Tensor) -> list[int]:
        assert logits.dtype == torch.float32
        assert logits.shape[0] == len(request_ids)
        self.asked.append(list(request_ids))
        tokens: list[int] = logits.argmax(-1).tolist()
        for request_id, token in zip(request_ids, tokens, strict=True):
            self.tokens.setdefault(request_id, []).append(token)
        return tokens

    def keep_scores(self, request_id: str, first: int, logits: torch.Tensor) -> None:
        kept = self.scored.setdefault(request_id, [])
        assert first == len(kept) + 1, "each token after the first is scored once, in order"
        kept += logits.clone()
        self.most_rows = max(self.most_rows, len(logits))

    def run(self) -> list[tuple[tuple[Row, ...], set[str]]]:
        passes = []
        while rows := self.prepare():
            passes.append((rows, self.step(self.most_likely, self.keep_scores)))
        return passes


@pytest.fixture
def batcher(tiny_llama: Path) -> Recorder:
    return Recorder(load_fp32(tiny_llama))


def truth(model: Path, prompt: list[int], count: int) -> list[int]:
    loaded, tokens = load_fp32(model), list(prompt)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(int(loaded(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_rows_are_in_packed_order_and_prompts_are_cut_to_the_step(batcher: Recorder) -> None:
    batcher.add("long", range(30), 2, ())
    batcher.add("short", [1, 2, 3], 2, ())
    first, second, third = (rows for rows, _ in batcher.run()[:3])
    assert first == (Row("long", 13, False, 0), Row("short", 3, True, 0))
    assert second == (Row("short", 1, True, 3), Row("long", 15, False, 13))
    assert third == (Row("long", 2, True, 28),)
    assert batcher.asked[:3] == [["short"], ["short"], ["long"]]


def test_tokens_are_those_of_the_model_alone(batcher: Recorder, tiny_llama: Path) -> None:
    prompts = {"a": list(range(20)), "b": [5, 6], "c": [200] * 9}
    for request_id, prompt in prompts.items():
        batcher.add(request_id, prompt, 6, ())
    complete = [ids for _, ids in batcher.run()]
    assert set().union(*complete) == set(prompts)
    assert batcher.tokens == {name: truth(tiny_llama, prompt, 6) for name, prompt in prompts.items()}


def test_end_token_completes_a_request(batcher: Recorder, tiny_llama: Path) -> None:
    expected = truth(tiny_llama, [1, 2, 3], 5)
    batcher.add("a", [1, 2, 3], 5, {expected[2]})
    assert batcher.run()[-1][1] == {"a"}
    assert batcher.tokens["a"] == expected[: expected.index(expected[2]) + 1]


def test_more_requests_than_fit_the_cache_are_all_answered(tiny_llama: Path) -> None:
    limits = BatchLimits(cache_tokens=64, page_tokens=8, step_tokens=16, requests=4)
    batcher = Recorder(load_fp32(tiny_llama), limits)
    prompts = {str(i): [i, i + 1, i + 2] for i in range(6)}
    for request_id, prompt in prompts.items():
        batcher.add(request_id, prompt, 24, ())
    passes = batcher.run()
    assert batcher.tokens == {name: truth(tiny_llama, prompt, 24) for name, prompt in prompts.items()}
    assert batcher.cache_use == 0
    again = [row for rows, _ in passes for row in rows if row.before == 0]
    assert len(again) > len(prompts), "none was ever computed again: the cache is too large for this test"


def test_answer_ends_where_the_cache_does(tiny_llama: Path) -> None:
    batcher = Recorder(load_fp32(tiny_llama), BatchLimits(cache_tokens=32, page_tokens=8, step_tokens=16, requests=4))
    batcher.add("a", [1, 2, 3], 100, ())
    batcher.run()
    assert batcher.tokens["a"] == truth(tiny_llama, [1, 2, 3], 29)
    with pytest.raises(ValueError, match="the prompt has 33 tokens, the key-value cache holds 32"):
        batcher.add("b", range(33), 1, ())


def test_dropped_requests_leave_no_trace(batcher: Recorder) -> None:
    for request_id in ("a", "b", "c"):
        batcher.add(request_id, [1, 2, 3, 4], 50, ())
    batcher.prepare()
    batcher.step(batcher.most_likely)
    assert batcher.running == 3
    assert batcher.cache_use > 0
    batcher.drop(["a", "unknown"])
    assert {row.request_id for row in batcher.prepare()} == {"b", "c"}
    batcher.drop(["b", "c"])
    assert (batcher.prepare(), batcher.running, batcher.waiting, batcher.cache_use) == ((), 0, 0, 0)


def test_pass_that_raises_leaves_the_others_alone(batcher: Recorder, tiny_llama: Path) -> None:
    batcher.add("a", [1, 2, 3], 4, ())
    rows = batcher.prepare()
    broken = batcher._model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        batcher.step(batcher.most_likely)
    broken.remove()
    batcher.drop([row.request_id for row in rows])
    batcher.add("b", [1, 2, 3], 4, ())
    batcher.run()
    assert batcher.tokens == {"b": truth(tiny_llama, [1, 2, 3], 4)}


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_every_token_of_a_prompt_is_scored_as_in_one_pass(max_tokens: int, batcher: Recorder, tiny_llama: Path) -> None:
    prompts = {"a": [(7 * i) % 250 for i in range(40)], "b": [4], "c": [1, 2]}
    batcher.add("beside", [9, 8, 7], 20, ())
    for request_id, prompt in prompts.items():
        batcher.add(request_id, prompt, max_tokens, (), scores_prompt=True)
    batcher.run()
    for request_id, prompt in prompts.items():
        with torch.no_grad():
            expected = load_fp32(tiny_llama)(torch.tensor([prompt])).logits[0, :-1]
        scored = batcher.scored.get(request_id, [])
        torch.testing.assert_close(torch.stack(scored) if scored else expected[:0], expected)
        assert batcher.tokens.get(request_id, []) == truth(tiny_llama, prompt, max_tokens)
    assert batcher.tokens["beside"] == truth(tiny_llama, [9, 8, 7], 20)
    assert batcher.cache_use == 0


def test_few_tokens_are_scored_in_one_pass(tiny_llama: Path) -> None:
    """Each takes memory for the whole vocabulary."""
    batcher = Recorder(load_fp32(tiny_llama), BatchLimits(cache_tokens=512, page_tokens=8, step_tokens=512))
    batcher.add("a", [i % 250 for i in range(400)], 1, (), scores_prompt=True)
    batcher.add("b", [i % 250 for i in range(100)], 1, (), scores_prompt=True)
    rows = [sum(row.scores for row in rows) for rows, _ in batcher.run()]
    assert sum(rows) == 399 + 99
    assert max(rows) <= 128


def test_prefixes_are_never_shared_unless_asked_for(batcher: Recorder) -> None:
    for request_id in ("a", "b"):
        batcher.add(request_id, range(40), 1, ())
    assert all(row.before == 0 or row.request_id == "a" for rows, _ in batcher.run()[:1] for row in rows)
    assert batcher.prefix_tokens == (0, 0)


def test_cache_size_is_that_of_keys_and_values(batcher: Recorder) -> None:
    per_token = sum(part.nbytes for layer in batcher._memory._layers.values() for part in layer) / 256
    assert per_token == cache_bytes_per_token(batcher._model) == 2 * 2 * 2 * 8 * 4  # kinds, layers, heads, width, bytes


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: nn.Linear(2, 2), "Linear cannot run in continuous batches: AttributeError"),
        # Attention of their own: one ignores the paged cache, the other stumbles over it.
        (lambda: GPTJForCausalLM(GPTJConfig(n_positions=64, rotary_dim=4, **GPT)), r"differ by \d+%\): its attention"),
        (lambda: BloomForCausalLM(BloomConfig(**GPT)), r"differ by \d+%\): its attention"),
        (lambda: StableLmForCausalLM(StableLmConfig(**SMALL)), "ValueError: StableLmAttention does not pass on"),
    ],
    ids=["linear", "gptj", "bloom", "stablelm"],
)
def test_model_that_cannot_be_batched_is_refused(model: Any, why: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ModelLoadError, match=why):
        Batcher(model().eval(), LIMITS)


def test_layers_of_other_kinds_are_refused_by_their_names(tiny_llama: Path) -> None:
    """A window of chunks shows only beyond the length of one, which may be too long for the check at the start."""
    model = load_fp32(tiny_llama)
    model.config.layer_types = ["full_attention", "chunked_attention"]
    with pytest.raises(ModelLoadError, match="layers of the type 'chunked_attention'; served are 'full_attention'"):
        Batcher(model, LIMITS)


def test_cache_that_does_not_fit_is_refused_with_its_size_and_what_to_do(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = MemoryError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 66418487040 bytes")
    monkeypatch.setattr(CacheMemory, "layer", Mock(side_effect=full))
    with pytest.raises(ModelLoadError, match=r"memory for a key-value cache of 256 tokens.*--cache-gib"):
        Recorder(load_fp32(tiny_llama))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_does_not_refuse_a_model(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    Batcher(MixtralForCausalLM(MixtralConfig(**SMALL)).to(dtype).eval(), LIMITS)


def test_the_kernel_of_a_gpu_gives_the_same(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reference stands in for it here: what is shown is that it gets the right blocks and lengths."""
    monkeypatch.setattr(batching, "_has_kernel", lambda device: True)
    batcher = Recorder(load_fp32(tiny_llama))
    assert batcher._memory.kernel
    prompts = {"a": list(range(20)), "b": [5, 6], "c": [200] * 9}
    for request_id, prompt in prompts.items():
        batcher.add(request_id, prompt, 6, ())
    batcher.run()
    assert batcher.tokens == {name: truth(tiny_llama, prompt, 6) for name, prompt in prompts.items()}


def fail(*arguments: Any, **options: Any) -> torch.Tensor:
    raise RuntimeError("PTX was compiled with an unsupported toolchain")


@pytest.mark.parametrize(
    ("kernel", "why"),
    [(fail, "unsupported toolchain"), (lambda query, *_, **__: torch.zeros_like(query), "computes other logits")],
    ids=["does not run", "is wrong"],
)
def test_a_kernel_that_does_not_work_costs_speed_alone(
    kernel: Any, why: str, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batching, "_has_kernel", lambda device: True)
    monkeypatch.setattr(paged_attention, "paged_attention", kernel)
    batcher = Recorder(load_fp32(tiny_llama))
    assert not batcher._memory.kernel
    assert why in caplog.text
    batcher.add("a", [1, 2, 3], 4, ())
    batcher.run()
    assert batcher.tokens["a"] == truth(tiny_llama, [1, 2, 3], 4)


def test_models_call_the_paged_attention(batcher: Recorder) -> None:
    assert batcher._model.config._attn_implementation == NAME
    assert NAME in AttentionInterface().valid_keys()
