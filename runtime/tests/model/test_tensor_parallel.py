"""Cutting a model into ranks' parts: the arithmetic here, the parts put together again by two real processes."""

import dataclasses
from typing import Any

import pytest
import torch
from transformers import AutoConfig, FalconConfig, LlamaConfig, Phi3Config
from transformers.distributed import DistributedConfig
from transformers.distributed.parallel_utils import ALL_PARALLEL_STYLES
from transformers.distributed.tensor_parallel import get_kv_heads_per_rank

from kaito_runtime.errors import ModelLoadError
from kaito_runtime.lora.sharded import Shard, even_interval
from kaito_runtime.model.recipe import DEFAULT_RECIPE
from kaito_runtime.model.recipes import find_recipes
from kaito_runtime.model.tensor_parallel import check_heads, class_plan, distributed_config


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("length", [1, 6, 7, 257])
def test_intervals_are_torchs_chunks(length: int, ranks: int) -> None:
    whole = torch.arange(length)
    parts = [whole[slice(*even_interval(length, rank, ranks))].tolist() for rank in range(ranks)]
    chunks = [chunk.tolist() for chunk in whole.chunk(ranks)]
    assert parts == chunks + [[]] * (ranks - len(chunks))


def test_shard_takes_rows_and_columns() -> None:
    shard = Shard((6, 10), rows=((2, 4), (8, 10)), columns=(3, 6))
    weight = torch.arange(60).view(10, 6)
    assert shard.local_shape == (3, 4)
    assert torch.equal(shard.of_columns(shard.of_rows(weight)), weight[[2, 3, 8, 9]][:, 3:])


def test_transformers_has_what_the_adapter_module_relies_on() -> None:
    assert {"tp_size", "tp_plan"} <= {field.name for field in dataclasses.fields(DistributedConfig)}
    styles = {"colwise", "colwise_gather_output", "rowwise", "rowwise_split_input", "embedding_rowwise"}
    assert styles <= set(ALL_PARALLEL_STYLES.keys())
    assert get_kv_heads_per_rank({"layers.*.self_attn.k_proj": "colwise"}, 8, 2) == 4
    assert get_kv_heads_per_rank({"layers.*.self_attn.query_key_value": "colwise"}, 8, 3) is None
    assert get_kv_heads_per_rank({"layers.*.self_attn.qkv_proj": "colwise_gather_output"}, 8, 2) == 8
    assert class_plan(LlamaConfig())["layers.*.self_attn.o_proj"] == "rowwise"
    assert class_plan(LlamaConfig())["lm_head"] == "colwise_gather_output"


def plan_of(config: Any) -> dict[str, str]:
    recipe = find_recipes().choose("default", config.architectures or [])
    return class_plan(config) | dict(recipe.tp_plan(config))


LLAMA_70B = LlamaConfig(num_attention_heads=64, num_key_value_heads=8, hidden_size=8192)
FALCON_7B = FalconConfig(
    num_attention_heads=71, hidden_size=4544, multi_query=True, architectures=["FalconForCausalLM"]
)
FALCON_40B = FalconConfig(
    num_attention_heads=128, hidden_size=8192, new_decoder_architecture=True, num_kv_heads=8,
    architectures=["FalconForCausalLM"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "ranks", "message"),
    [
        (LLAMA_70B, 16, "8 key-value heads, which 16 processes (WORLD_SIZE) cannot share evenly; start 1, 2, 4, 8"),
        (LLAMA_70B, 3, "64 attention heads, which 3 processes"),
        (FALCON_7B, 2, "71 attention heads, which 2 processes (WORLD_SIZE) cannot share evenly; start 1, 71"),
        (FALCON_40B, 16, "8 key-value heads, which 16 processes (WORLD_SIZE) cannot share evenly; start 1, 2, 4, 8"),
        (AutoConfig.for_model("gpt2"), 2, "neither transformers nor a recipe has a tensor parallel plan for gpt2"),
    ],
)
def test_numbers_that_do_not_divide_are_named(config: Any, ranks: int, message: str) -> None:
    with pytest.raises(ModelLoadError) as refused:
        check_heads(config, plan_of(config), ranks)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("config", "ranks"), [(LLAMA_70B, 8), (FALCON_40B, 8), (Phi3Config(num_attention_heads=40), 3)]
)
def test_numbers_that_divide_are_taken(config: Any, ranks: int) -> None:
    check_heads(config, plan_of(config), ranks)


def test_plan_of_the_class_is_left_to_transformers() -> None:
    assert distributed_config(DEFAULT_RECIPE, LLAMA_70B, 2).tp_plan is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "share"),
    [
        ("llama", 0.5),
        ("falcon-old", 0.6),  # both ranks have the key and the value
        ("falcon-new", 0.5),
        ("falcon-rw", 0.5),
        ("qwen2", 0.5),
        ("qwen3", 0.5),
        ("phi", 0.5),
        ("phi3", 0.5),
    ],
)
def test_every_architecture_is_exact_in_parts(two_ranks: dict[str, Any], architecture: str, share: float) -> None:
    found = two_ranks["leader"]["models"][architecture]
    assert found["0"] <= 1e-4
    assert found["0.75"] <= 1e-4
    assert found["moved"] > 1e-2
    assert found["here"] <= share * found["whole"]
