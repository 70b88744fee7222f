"""All that the runtime uses of transformers' tensor parallelism: its plans, and reading the weights in parts.

transformers reads each rank's part of the weights, and knows for many architectures which layers go together. Where
LoRA layers replace its layers its hooks go, since LoRA layers join their outputs themselves (`lora.sharded`); the
embedding and the output head keep theirs. To the engine the result is an ordinary model with this rank's heads.
`runtime/tests/model/test_tensor_parallel.py` fails if a version of transformers moves what is used here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig
from transformers.distributed import DistributedConfig
from transformers.distributed.tensor_parallel import get_kv_heads_per_rank

from kaito_runtime.errors import ModelLoadError
from kaito_runtime.lora.sharded import Shard, even_interval
from kaito_runtime.lora.targets import linear_shape, output_head
from kaito_runtime.model.recipe import Recipe

__all__ = ["check_heads", "class_plan", "cut_model", "distributed_config"]

_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_ATTENTION = re.compile(r"attn|attention")


def class_plan(config: PretrainedConfig) -> dict[str, str]:
    """Returns the plan of a model's class before anything is loaded, by paths inside the base model."""
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    own = getattr(model_class, "_tp_plan", None) or {}
    return {**(getattr(config, "base_model_tp_plan", None) or {}), **own}


def check_heads(config: PretrainedConfig, plan: Mapping[str, str], ranks: int) -> None:
    """Checks that the heads can be shared evenly among `ranks` processes.

    Raises:
        ModelLoadError: They cannot (the message names the numbers that would do), or there is no plan.
    """
    if not plan:
        raise ModelLoadError(
            f"WORLD_SIZE is {ranks}, but neither transformers nor a recipe has a tensor parallel plan for "
            f"{config.model_type}: start one process, or install a package whose recipe has one"
        )
    text = config.get_text_config()
    kinds: dict[str, int] = {}
    if any(_ATTENTION.search(path) and style == "rowwise" for path, style in plan.items()):
        kinds["attention heads"] = int(text.num_attention_heads)
    if get_kv_heads_per_rank(dict(plan), 1, 2) is None:  # the plan spreads keys and values over the ranks
        kinds["key-value heads"] = _kv_heads(text)
    for kind, heads in kinds.items():
        if heads % ranks:
            fit = [n for n in range(1, heads + 1) if all(h % n == 0 for h in kinds.values())]
            raise ModelLoadError(
                f"the model has {heads} {kind}, which {ranks} processes (WORLD_SIZE) cannot share evenly; start "
                f"{', '.join(map(str, fit))}"
            )


def distributed_config(recipe: Recipe, config: PretrainedConfig, ranks: int) -> DistributedConfig:
    """Returns the argument that makes `from_pretrained` read this rank's part.

    Raises:
        ModelLoadError: The model cannot be shared among that many ranks.
    """
    added = dict(recipe.tp_plan(config))
    check_heads(config, class_plan(config) | added, ranks)
    return DistributedConfig(tp_size=ranks, tp_plan=added or None)


def cut_model(model: nn.Module, recipe: Recipe, rank: int, ranks: int) -> dict[str, Shard]:
    """Turns a model that transformers read in parts into plain modules with this rank's weights, in place.

    Returns:
        The part that is here of each linear layer that is cut and that adapters may target, by path.

    Raises:
        ModelLoadError: A layer is cut in a way that adapters cannot follow.
    """
    wrapped: Any = model
    plan: Mapping[str, str] = wrapped.tp_plan
    shards = dict(recipe.cut(model, rank, ranks))
    for path, shard in shards.items():
        _localise(model.get_submodule(path), shard)
    head = output_head(model)
    for path, module in model.named_modules():
        if path in shards or linear_shape(module) is None or not isinstance(module.weight, DTensor):
            continue
        if module is head or any(path == name or path.endswith(f".{name}") for name in recipe.lora_exclude):
            continue  # keeps transformers' hook
        shards[path] = shard = _planned(path, module, plan, rank, ranks)
        _localise(module, shard)
    config = wrapped.config.get_text_config()
    config.num_key_value_heads = get_kv_heads_per_rank(dict(plan), _kv_heads(config), ranks)  # sizes this rank's cache
    wrapped._device_mesh = None
    return shards


def _kv_heads(config: Any) -> int:
    names = ("num_key_value_heads", "num_kv_heads", "num_attention_heads")  # the second is Falcon's
    return next(int(heads) for name in names if (heads := getattr(config, name, None)))


def _planned(path: str, module: Any, plan: Mapping[str, str], rank: int, ranks: int) -> Shard:
    style = plan.get(_LAYER_NUMBER.sub("*", path), "none")
    k, n = shape = (module.in_features, module.out_features)
    rows, columns = even_interval(n, rank, ranks), even_interval(k, rank, ranks)
    if style in ("colwise", "colwise_gather_output", "colwise_rep"):
        gathers = style != "colwise"
        if gathers and n % ranks:
            raise ModelLoadError(f"'{path}' has {n} outputs, which {ranks} processes (WORLD_SIZE) cannot share evenly")
        return Shard(shape, (rows,), (0, k), joins="gather" if gathers else "not")
    if style in ("rowwise", "rowwise_split_input", "rowwise_rep"):
        return Shard(shape, ((0, n),), columns, splits_input=style != "rowwise", joins="sum")
    raise ModelLoadError(f"'{path}' is cut by the tensor parallel style '{style}', which adapters cannot follow")


def _localise(module: Any, shard: Shard) -> None:
    """Cuts a linear layer to its shard, and removes transformers' hook."""
    k, n = shard.local_shape
    if more := sorted({*module._parameters, *module._buffers} - {"weight", "bias"}):
        raise ModelLoadError(
            f"a linear layer has {', '.join(more)}: quantised weights cannot be shared among processes"
        )
    vars(module).pop("forward", None)
    module.weight = nn.Parameter(_here(module.weight.detach(), shard), requires_grad=False)
    if tuple(module.weight.shape) != (n, k):
        raise ModelLoadError(f"a layer's part has shape {list(module.weight.shape)}, expected [{n}, {k}]")
    if module.bias is not None:
        module.bias = nn.Parameter(_here(module.bias.detach(), shard), requires_grad=False)
    module.in_features, module.out_features = k, n


def _here(tensor: Tensor, shard: Shard) -> Tensor:
    if isinstance(tensor, DTensor):
        return tensor.to_local()
    rows = shard.of_rows(tensor)
    # A copy: a view would keep the whole weight in memory.
    return (shard.of_columns(rows) if rows.ndim > 1 else rows).clone()
