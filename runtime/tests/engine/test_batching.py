"""The contract with transformers' continuous batching: each name that `batching` uses, and what it relies on."""

import inspect
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
    ContinuousBatchingConfig,
    GPTJConfig,
    GPTJForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)
from transformers.generation.continuous_batching import cache, continuous_api, input_outputs, model_runner, scheduler
from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState, RequestStatus

from kaito_runtime.engine.batching import Batcher, Row
from kaito_runtime.errors import ModelLoadError
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


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (
            continuous_api.ContinuousMixin,
            "init_continuous_batching",
            ["generation_config", "continuous_batching_config"],
        ),
        (continuous_api.ContinuousBatchingManager, "_create_batch_processor", []),
        (continuous_api.ContinuousBatchProcessor, "prepare_next_batch", []),
        (continuous_api.ContinuousBatchProcessor, "_generation_step", ["model"]),
        (continuous_api.ContinuousBatchProcessor, "update_batch", []),
        (model_runner.ModelRunner, "_sample", ["scores", "output_ids"]),
        (scheduler.Scheduler, "add_waiting_request", ["state"]),
        (scheduler.Scheduler, "set_request_cancellation", ["request_id"]),
        (scheduler.Scheduler, "clear_cancelled_requests", []),
        (cache.PagedAttentionCache, "compute_free_capacity", []),
        (cache.CacheAllocator, "get_cache_for_block_table", ["layer_idx"]),
        (input_outputs.ContinuousBatchingIOs, "get_model_kwargs", []),
        (cache, "group_layers_by_attn_type", ["config"]),
        (AttentionInterface, "register", ["key", "value"]),
        (RequestState, "__init__", ["request_id", "initial_tokens", "max_new_tokens", "eos_token_id"]),
        (FutureRequestState, "__init__", ["state", "has_new_token", "query_length"]),
        (
            ContinuousBatchingConfig,
            "__init__",
            [
                "page_size",
                "num_blocks",
                "max_batch_tokens",
                "max_requests_per_batch",
                "max_blocks_per_request",
                "allow_block_sharing",
                "use_async_batching",
                "use_cuda_graph",
                "seed",
                "auto_switch_to_flash",
            ],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_transformers_has_what_is_used(owner: Any, name: str, parameters: list[str]) -> None:
    assert set(parameters) <= set(inspect.signature(getattr(owner, name)).parameters)


def test_sampling_of_transformers_is_called_through_the_instance() -> None:
    assert "self._sample(scores, output_ids)" in inspect.getsource(model_runner.ModelRunner)
    assert "self.requests_in_batch" in inspect.getsource(input_outputs.ContinuousBatchingIOs)
    assert RequestStatus.FINISHED.name == "FINISHED"
    assert cache.FULL_ATTENTION == "full_attention"


class Recorder(Batcher):
    """A batcher that takes the most likely tokens and writes down who asked."""

    def __init__(self, model: nn.Module, limits: BatchLimits = LIMITS) -> None:
        self.asked: list[list[str]] = []
        self.tokens: dict[str, list[int]] = {}
        super().__init__(model, limits)

    def most_likely(self, request_ids: Sequence[str], logits: torch.Tensor) -> list[int]:
        assert logits.dtype == torch.float32
        assert logits.shape[0] == len(request_ids)
        self.asked.append(list(request_ids))
        tokens: list[int] = logits.argmax(-1).tolist()
        for request_id, token in zip(request_ids, tokens, strict=True):
            self.tokens.setdefault(request_id, []).append(token)
        return tokens

    def run(self) -> list[tuple[tuple[Row, ...], set[str]]]:
        passes = []
        while rows := self.prepare():
            passes.append((rows, self.step(self.most_likely)))
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
    batcher.add("long", range(20), 2, ())
    batcher.add("short", [1, 2, 3], 2, ())
    first, second, third = (rows for rows, _ in batcher.run()[:3])
    assert first == (Row("long", 16, False, 0),)
    assert set(second) == {Row("long", 4, True, 16), Row("short", 3, True, 0)}
    assert [row.tokens for row in third] == [1, 1]
    assert [sorted(ids) for ids in batcher.asked[:3]] == [[], ["long", "short"], ["long", "short"]]


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
    batcher.run()
    assert batcher.tokens == {name: truth(tiny_llama, prompt, 24) for name, prompt in prompts.items()}
    assert batcher.cache_use == 0


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


def test_prefixes_are_never_shared(batcher: Recorder) -> None:
    """transformers finds them by tokens alone, and they may have been computed under other adapters."""
    assert not batcher._processor.cache.use_prefix_sharing


def test_cache_size_is_that_of_keys_and_values(batcher: Recorder) -> None:
    assert cache_bytes_per_token(batcher._model) == 2 * 2 * 2 * 8 * 4  # two kinds, layers, heads, width, bytes


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: nn.Linear(2, 2), "Linear cannot run in continuous batches: AttributeError"),
        # Attention of their own: one ignores the paged cache, the other stumbles over it.
        (lambda: GPTJForCausalLM(GPTJConfig(n_positions=64, rotary_dim=4, **GPT)), r"differ by \d+%\): its attention"),
        (lambda: BloomForCausalLM(BloomConfig(**GPT)), r"differ by \d+%\): its attention"),
        (lambda: StableLmForCausalLM(StableLmConfig(**SMALL)), "cannot run in continuous batches: AttributeError"),
    ],
    ids=["linear", "gptj", "bloom", "stablelm"],
)
def test_model_that_cannot_be_batched_is_refused(model: Any, why: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ModelLoadError, match=why):
        Batcher(model().eval(), LIMITS)


def test_cache_that_does_not_fit_is_refused_with_its_size_and_what_to_do(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    footprint = MemoryError("Memory footprint 66418487040 is more than available memory 61171071713")
    monkeypatch.setattr(cache.PagedAttentionCache, "__init__", Mock(side_effect=footprint))
    with pytest.raises(ModelLoadError, match=r"memory for a key-value cache of 256 tokens.*--cache-gib"):
        Recorder(load_fp32(tiny_llama))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_does_not_refuse_a_model(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    Batcher(MixtralForCausalLM(MixtralConfig(**SMALL)).to(dtype).eval(), LIMITS)


def test_offset_of_a_request_counts_its_keys_once_a_pass_is_prepared(batcher: Recorder) -> None:
    batcher.add("long", range(20), 2, ())
    offsets = []
    while batcher.prepare():
        offsets.append([future.state.position_offset for future in batcher._in_batch()])
        batcher.step(batcher.most_likely)
    assert offsets == [[16], [20], [21]]
