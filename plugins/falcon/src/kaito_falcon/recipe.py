"""Runtime half of the Falcon package: converts a loaded Falcon for continuous batches, and splits it across GPUs."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers.models.falcon.modeling_falcon import FalconAttention, FalconDecoderLayer, FalconForCausalLM

from kaito_falcon.modeling import (
    InterfaceAttention,
    InterfaceDecoderLayer,
    InterfaceFalconForCausalLM,
    InterfaceFalconModel,
    kv_heads,
)
from kaito_runtime import hookimpl
from kaito_runtime.errors import ModelLoadError
from kaito_runtime.lora.sharded import Shard, even_interval
from kaito_runtime.model.recipe import Recipe

__all__ = ["cut", "kaito_runtime_recipes", "prepare", "tp_plan"]

_FUSED = "transformer.h.{}.self_attention.query_key_value"


@hookimpl
def kaito_runtime_recipes() -> Sequence[Recipe]:
    """Returns the recipe for Falcon models with rotary positions."""
    return (Recipe(name="falcon", architectures=("FalconForCausalLM",), prepare=prepare, tp_plan=tp_plan, cut=cut),)


def tp_plan(config: Any) -> Mapping[str, str]:
    """Returns the tensor parallel plan. transformers has none for Falcon.

    The rows of the fused projection are, per key-value head, the queries, the key and the value, so that it can be
    split between key-value heads. With a single key-value head it cannot: `cut` splits its queries.
    """
    plan = {
        "transformer.word_embeddings": "embedding_rowwise",
        "transformer.h.*.self_attention.query_key_value": "colwise",
        "transformer.h.*.self_attention.dense": "rowwise",
        "transformer.h.*.mlp.dense_h_to_4h": "colwise",
        "transformer.h.*.mlp.dense_4h_to_h": "rowwise",
        "lm_head": "colwise_gather_output",
    }
    if kv_heads(config) == 1:
        del plan[_FUSED.format("*")]
    return plan


def cut(model: nn.Module, rank: int, ranks: int) -> Mapping[str, Shard]:
    """Returns the rows of the fused projections that a rank needs if there is a single key-value head.

    A rank needs its share of the query heads, and the key-value head, which all ranks have. The number of heads of each
    attention module is changed to that of the rank.
    """
    falcon: Any = model
    if kv_heads(falcon.config) != 1:
        return {}
    shards = {}
    for index, layer in enumerate(falcon.transformer.h):
        attention, fused = layer.self_attention, layer.self_attention.query_key_value
        first, last = even_interval(attention.num_heads, rank, ranks)
        queries, every = attention.num_heads * attention.head_dim, (0, fused.in_features)
        mine = (first * attention.head_dim, last * attention.head_dim)
        shards[_FUSED.format(index)] = Shard(
            (fused.in_features, fused.out_features), (mine, (queries, fused.out_features)), every
        )
        attention.num_heads = last - first
    return shards


def prepare(model: nn.Module) -> None:
    """Converts a model, in place, so that its attention goes through transformers' attention interface.

    Raises:
        ModelLoadError: The model is not a Falcon, or has ALiBi positions.
    """
    falcon: Any = model
    if not isinstance(falcon, FalconForCausalLM):
        raise ModelLoadError(f"the recipe 'falcon' is for FalconForCausalLM, got {type(model).__name__}")
    if falcon.config.alibi:
        raise ModelLoadError(
            "config.json: alibi is true: a Falcon with ALiBi positions cannot be served, since the attention interface "
            "takes no bias; serve one with rotary positions, such as falcon-7b"
        )
    # Another class changes what a module computes, and leaves its parameters as they are.
    falcon.__class__ = InterfaceFalconForCausalLM
    falcon.transformer.__class__ = InterfaceFalconModel
    for layer in falcon.transformer.h:
        _change_class(layer, FalconDecoderLayer, InterfaceDecoderLayer)
        _change_class(layer.self_attention, FalconAttention, InterfaceAttention)
    # The size of the cache is computed from this attribute. Without it every query head would get room for keys.
    falcon.config.num_key_value_heads = kv_heads(falcon.config)


def _change_class(module: Any, old: type, new: type) -> None:
    if not isinstance(module, old):
        raise ModelLoadError(
            f"expected a {old.__name__}, got a {type(module).__name__}: prepare must run before modules are replaced"
        )
    module.__class__ = new
