"""Which modules LoRA can adapt, their sizes, and what their weights are. What replaces them is in `layers`."""

from typing import cast

import torch
from torch import Tensor, nn

from kaito_runtime.kernels.common import FLOATING, NARROW
from kaito_runtime.kernels.dispatch import Base
from kaito_runtime.kernels.launch import FP8_ARCHITECTURES, arch_of

__all__ = ["base_of", "has_pdl", "linear_shape"]

# Subclasses whose product is x W^T + bias and nothing else, so that a kernel may compute it in their place.
PLAIN = ("Linear", "FalconLinear")


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """Returns (K, N), in-features and out-features, of a whole linear layer, or None for any other module.

    Linear layers are `nn.Linear` and its subclasses, transformers' `Conv1D` (its weight is transposed), and the layers
    that `inject_lora` put in their places.
    """
    shape = getattr(module, "adapter_shape", None)  # a LoraLinear
    if isinstance(shape, tuple):
        return shape
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    # By name: importing transformers for one isinstance would cost a second.
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf") and cast(Tensor, module.weight).ndim == 2:
        k, n = cast(Tensor, module.weight).shape
        return k, n
    return None


def base_of(module: nn.Module) -> Base:
    """Returns which kinds of product may be used with the weight of a linear layer."""
    weight = cast(Tensor, module.weight)
    if not isinstance(module, nn.Linear) or weight.shape != (module.out_features, module.in_features):
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
