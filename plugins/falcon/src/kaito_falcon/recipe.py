"""Runtime half of the Falcon package: makes a Falcon that transformers loaded run in continuous batches."""

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
    """Returns the recipe of every Falcon with rotary positions."""
    return (Recipe(name="falcon", architectures=("FalconForCausalLM",), prepare=prepare, tp_plan=tp_plan, cut=cut),)


def tp_plan(config: Any) -> Mapping[str, str]:
    """Returns the tensor parallel plan, which transformers does not have for Falcon.

    The fused projection holds, for each key-value head, its queries, its key and its value: contiguous parts are whole
    groups. Where all queries share one head, its rows stand behind those of all queries; `cut` takes them apart.
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
    """Gives every rank its query heads and the one key-value head that all of them share."""
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
    """Lets a Falcon's attention go through transformers' attention interface, in place. Parameters are not touched.

    Raises:
        ModelLoadError: The model is no Falcon, or one with ALiBi positions.
    """
    falcon: Any = model
    if not isinstance(falcon, FalconForCausalLM):
        raise ModelLoadError(f"recipe 'falcon' is for FalconForCausalLM, the weights are of {type(model).__name__}")
    if falcon.config.alibi:
        raise ModelLoadError(
            "config.json: alibi is true; the attention interface has no place for ALiBi's bias, so that this Falcon "
            "cannot run in continuous batches. Serve one with rotary positions, such as falcon-7b"
        )
    # Modules keep their parameters; a class is all that tells how they compute.
    falcon.__class__ = InterfaceFalconForCausalLM
    falcon.transformer.__class__ = InterfaceFalconModel
    for layer in falcon.transformer.h:
        _turn(layer, FalconDecoderLayer, InterfaceDecoderLayer)
        _turn(layer.self_attention, FalconAttention, InterfaceAttention)
    # The paged cache is sized by this name, which FalconConfig does not have: all query heads would be reserved.
    falcon.config.num_key_value_heads = kv_heads(falcon.config)


def _turn(module: Any, known: type, into: type) -> None:
    if not isinstance(module, known):
        raise ModelLoadError(
            f"{type(module).__name__} is no {known.__name__}: prepare runs before any module is replaced"
        )
    module.__class__ = into
