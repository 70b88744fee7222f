"""The tensors of an adapter's file, told apart by their names: each is part of a sum, equals the base, or is refused.

Which of them there must be is said by the configuration; `files` compares the two.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kaito_core.api.peft.config import LARGEST, Refuse
from kaito_core.api.peft.keys import REFUSED

__all__ = ["AdapterTensors", "sort_tensors"]

PREFIX = "base_model.model."
LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
EMBEDDING_KEY = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<half>[AB])(?:\.(?P<adapter>[^.]+))?")
TOKENS_KEY = re.compile(r"(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.(?P<adapter>[^.]+))?")
# Where PEFT keeps the weight of a module that it wraps, and the adapter's copy of one that is trained as a whole.
WRAPPERS = re.compile(r"\.(?:base_layer|original_module|modules_to_save(?:\.[^.]+(?=\.\w+$))?)(?=\.\w+$)")
DTYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})

Pair = tuple[Tensor, Tensor]
"""A `[r, K]` and B `[N, r]`."""


@dataclass(frozen=True, slots=True)
class AdapterTensors:
    """What a file holds, by the path of the module in the base model.

    Attributes:
        linear: A and B of modules that are called like linear layers.
        embedding: A and B of modules that are called like embeddings.
        tokens: `[tokens, width]`, new rows of embeddings.
        copies: Names of the base model's parameters that the file repeats, with the values that they have there.
    """

    linear: Mapping[str, Pair]
    embedding: Mapping[str, Pair]
    tokens: Mapping[str, Tensor]
    copies: frozenset[str]


def sort_tensors(tensors: Mapping[str, Tensor], model: nn.Module, refuse: Refuse) -> AdapterTensors:
    """Tells the tensors of a file apart.

    Raises:
        AdapterLoadError: One of them is unknown, is no number, lacks its other half, or differs from the base weight
            that it is a copy of.
    """
    modules = dict(model.named_modules())
    weights = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    linear: dict[str, dict[str, Tensor]] = {}
    embedding: dict[str, dict[str, Tensor]] = {}
    tokens: dict[str, Tensor] = {}
    copies: set[str] = set()
    adapters: dict[str | None, str] = {}  # from the name in a key to the first key with that name
    for key, tensor in sorted(tensors.items()):
        bare = key.removeprefix(PREFIX)
        copied = WRAPPERS.sub("", bare)
        if (match := LORA_KEY.fullmatch(bare)) or (match := EMBEDDING_KEY.fullmatch(bare)):
            halves, half = embedding if "lora_embedding_" in bare else linear, match["half"]
            if half in halves.setdefault(match["module"], {}):
                raise refuse(
                    f"tensor '{key}': '{match['module']}' has more than one lora_{half}; save one adapter per folder"
                )
            halves[match["module"]][half] = tensor
        elif match := TOKENS_KEY.fullmatch(bare):
            tokens[match["module"]] = tensor
        elif copied in weights:
            _check_copy(key, tensor, weights[copied], modules.get(copied.rpartition(".")[0]), refuse)
            copies.add(copied)
            continue
        else:
            raise refuse(f"tensor '{key}' {_what_it_is(bare)}")
        adapters.setdefault(match["adapter"], key)
        _check_values(key, tensor, refuse)
    if len(adapters) > 1:
        first, second = list(adapters.values())[:2]
        raise refuse(f"tensors '{first}' and '{second}' belong to two adapters; save one adapter per folder")
    return AdapterTensors(_pairs(linear, refuse), _pairs(embedding, refuse), tokens, frozenset(copies))


def _pairs(halves: Mapping[str, Mapping[str, Tensor]], refuse: Refuse) -> dict[str, Pair]:
    for path, pair in halves.items():
        for half in "AB":
            if half not in pair:
                raise refuse(f"'{path}' has no lora_{half}, only the other half; save the adapter again")
    return {path: (pair["A"], pair["B"]) for path, pair in halves.items()}


def _check_copy(key: str, tensor: Tensor, base: Tensor, module: nn.Module | None, refuse: Refuse) -> None:
    """Refuses a copy of a base weight that is not the base weight, however both are rounded."""
    if hasattr(base, "full_tensor"):  # to see the whole of it, all ranks would have to ask at once
        raise refuse(
            f"tensor '{key}' is a copy of a base weight, which cannot be compared where several processes share the "
            "model; train the adapter without the output head and the embedding"
        )
    if tensor.shape != base.shape:
        if hasattr(module, "num_embeddings") or ".base_layer." not in key:
            raise refuse(
                f"tensor '{key}' {list(tensor.shape)} replaces an embedding or extends the vocabulary, the base model "
                f"has {list(base.shape)}; train the adapter without resizing the embeddings"
            )
        raise refuse(f"tensor '{key}' has shape {list(tensor.shape)}, the base model's has {list(base.shape)}")
    copy, weight = tensor, base.detach().cpu()
    if torch.equal(copy.to(weight.dtype), weight) or torch.equal(weight.to(copy.dtype), copy):
        return
    if ".base_layer." in key:
        raise refuse(
            f"tensor '{key}' is a copy of a base weight that differs from the base model's; was it trained on another "
            "model?"
        )
    raise refuse(
        f"tensor '{key}' differs from the base model's: whole modules were trained (modules_to_save), which "
        "cannot be weighted by a strength"
    )


def _what_it_is(bare: str) -> str:
    """Says what an unknown tensor is, and what to do about it."""
    if "lora_magnitude_vector" in bare:
        return f"belongs to DoRA: {REFUSED['use_dora']}"
    if "lora_diag" in bare:
        return f"belongs to KaSA: {REFUSED['kasa_config']}"
    if bare.endswith(".bias"):
        return "is a trained bias, which cannot be weighted by a strength; train with bias='none' and lora_bias=False"
    return "is not lora_A or lora_B of a module, and nothing else can be weighted by a strength; save a PEFT LoRA"


def _check_values(key: str, tensor: Tensor, refuse: Refuse) -> None:
    if tensor.dtype not in DTYPES:
        raise refuse(f"tensor '{key}' has dtype {tensor.dtype}, expected a floating-point type of 16 bits or more")
    peak = tensor.abs().max().item() if tensor.numel() else 0.0
    if not math.isfinite(peak):
        raise refuse(
            f"tensor '{key}' holds NaN or infinite values; take a checkpoint from before the training diverged"
        )
    if peak > LARGEST:
        raise refuse(f"tensor '{key}' holds a value of magnitude {peak:g}; the largest accepted is {LARGEST:g}")
