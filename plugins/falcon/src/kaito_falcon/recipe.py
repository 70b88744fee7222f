"""Runtime half of the Falcon package: makes a Falcon that transformers loaded run in continuous batches."""

from collections.abc import Sequence
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
from kaito_runtime.errors import ModelLoadError
from kaito_runtime.recipe import Recipe

__all__ = ["kaito_runtime_recipes", "prepare"]


def kaito_runtime_recipes() -> Sequence[Recipe]:
    """Returns the recipe of every Falcon with rotary positions."""
    return (Recipe(name="falcon", architectures=("FalconForCausalLM",), prepare=prepare),)


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
