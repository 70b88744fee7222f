"""Which modules LoRA can adapt, their sizes, and what their weights are. What replaces them is in `layers`."""

import re
from typing import cast

import torch
from torch import Tensor, nn

from kaito_runtime.kernels.common import FLOATING, NARROW
from kaito_runtime.kernels.dispatch import Base
from kaito_runtime.kernels.launch import FP8_ARCHITECTURES, arch_of

__all__ = [
    "base_of",
    "embedding_shape",
    "expert_shapes",
    "has_pdl",
    "input_embedding",
    "is_tied",
    "linear_shape",
    "output_head",
    "router_shape",
]

# Subclasses whose product is x W^T + bias and nothing else, so that a kernel may compute it in their place.
PLAIN = ("Linear", "FalconLinear")


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """Returns (K, N), in-features and out-features, of a whole linear layer, or None for any other module.

    Linear layers are `nn.Linear` and its subclasses, transformers' `Conv1D` (its weight is transposed), layers of
    quantised weights that multiply as one, and the layers that `inject_lora` put in their places.
    """
    shape = getattr(module, "adapter_shape", None)
    if isinstance(shape, tuple):
        return shape if hasattr(module, "in_features") else None  # a LoraLinear, or a layer of another kind
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    # Layers of packed weights (GPTQ, AWQ, compressed-tensors) may be no nn.Linear, but multiply as one.
    sizes = getattr(module, "in_features", None), getattr(module, "out_features", None)
    if "Linear" in type(module).__name__ and all(isinstance(size, int) for size in sizes):
        return cast(tuple[int, int], sizes)
    # By name: importing transformers for one isinstance would cost a second.
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf") and cast(Tensor, module.weight).ndim == 2:
        k, n = cast(Tensor, module.weight).shape
        return k, n
    return None


def embedding_shape(module: nn.Module) -> tuple[int, int] | None:
    """Returns (K, N), tokens of the vocabulary and width, of an embedding, or None for any other module."""
    if isinstance(module, nn.Embedding):
        # An embedding that rescales its own weight cannot be looked up apart.
        return (module.num_embeddings, module.embedding_dim) if module.max_norm is None else None
    shape = getattr(module, "adapter_shape", None)
    return shape if isinstance(shape, tuple) and hasattr(module, "num_embeddings") else None  # a LoraEmbedding


def input_embedding(model: nn.Module) -> nn.Module | None:
    """Returns the module that looks up tokens, of a transformers model."""
    found = getattr(model, "get_input_embeddings", lambda: None)()
    return found if isinstance(found, nn.Module) else None


def output_head(model: nn.Module) -> nn.Module | None:
    """Returns the module that makes logits, of a transformers model."""
    found = getattr(model, "get_output_embeddings", lambda: None)()
    return found if isinstance(found, nn.Module) else None


def expert_shapes(module: nn.Module) -> dict[str, tuple[int, int, int]]:
    """Returns (E, K, N) of each stacked weight of a mixture's experts by its name, or nothing for any other module.

    These are the modules that transformers can compute by its own library functions: what they do beside their two
    products is known (`transformers.integrations.moe`).
    """
    marks = ("has_gate", "has_bias", "has_post_expert_norm", "is_transposed", "is_concatenated", "num_experts")
    if not all(hasattr(module, mark) for mark in marks):
        return {}
    shapes = {}
    for name in ("gate_up_proj" if module.has_gate else "up_proj", "down_proj"):
        weight = getattr(module, name, None)
        if not isinstance(weight, nn.Parameter) or weight.ndim != 3 or weight.dtype not in FLOATING:
            return {}
        experts, n, k = weight.shape
        shapes[name] = (experts, n, k) if module.is_transposed else (experts, k, n)
    return shapes


def router_shape(module: nn.Module) -> tuple[int, int] | None:
    """Returns (K, N), width and experts, of a mixture's router that is no linear layer, or None for another module."""
    weight = module._parameters.get("weight")
    if not re.search("Router|Gate", type(module).__name__) or isinstance(module, nn.Linear) or weight is None:
        return None
    return (weight.shape[1], weight.shape[0]) if weight.ndim == 2 and weight.dtype in FLOATING else None


def is_tied(model: nn.Module) -> bool:
    """Returns whether a transformers model's output head has the weight of its input embedding."""
    return bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False))


def base_of(module: nn.Module) -> Base:
    """Returns which kinds of product may be used with the weight of a linear layer."""
    weight = getattr(module, "weight", None)
    if not isinstance(module, nn.Linear) or not isinstance(weight, Tensor):
        return Base.OPAQUE
    if weight.shape != (module.out_features, module.in_features):
        return Base.OPAQUE
    scale = getattr(module, "weight_scale", None)
    if weight.dtype in NARROW and isinstance(scale, Tensor) and scale.shape == weight.shape[:1]:
        return Base.ROW_SCALED if weight.dtype is torch.int8 or _has_fp8(weight.device) else Base.OPAQUE
    return Base.DENSE if type(module).__name__ in PLAIN and weight.dtype in FLOATING else Base.OPAQUE


def has_pdl(device: torch.device) -> bool:
    """Returns whether `device` has programmatic dependent launch; a CPU counts as such, to take the same paths."""
    return device.type != "cuda" or _arch(device) == "sm_90"


def _has_fp8(device: torch.device) -> bool:
    return device.type != "cuda" or _arch(device) in FP8_ARCHITECTURES


def _arch(device: torch.device) -> str:
    if torch.version.hip:
        return arch_of("hip", 0)
    major, minor = torch.cuda.get_device_capability(device)
    return arch_of("cuda", 10 * major + minor)
