"""Quantised weights: as a model's files have them, or made of 16-bit files while loading.

What multiplies by them is transformers and the library of the method; adapters are added on top (`kernels.expand_add`).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import BitsAndBytesConfig

from kaito_core.api.preset.quantization import AS_STORED
from kaito_runtime.errors import ModelLoadError

__all__ = ["quantised_arguments"]


def quantised_arguments(
    config: Any, wanted: str, *, device: torch.device, dtype: torch.dtype, gguf: bool, ranks: int
) -> dict[str, Any]:
    """Returns the arguments that make `from_pretrained` load quantised weights; {} where they are not.

    Args:
        config: The model's configuration.
        wanted: One of `kaito_core.api.preset.quantization.QUANTIZATIONS`.
        device: Where the model will be: libraries lay weights out for it while they load.
        dtype: Type to compute in.
        gguf: The weights are a GGUF file.
        ranks: Processes that share the model.

    Raises:
        ModelLoadError: The weights cannot be quantised like this, or quantised ones cannot be shared.
    """
    stored = getattr(config, "quantization_config", None)
    method = stored.get("quant_method", "unknown") if isinstance(stored, dict) else getattr(stored, "quant_method", "")
    if wanted == AS_STORED and stored is None:
        return {}
    if ranks > 1:
        raise ModelLoadError(f"WORLD_SIZE is {ranks}, but quantised weights cannot be shared: start one process")
    on_device = {"device_map": {"": device}}
    if wanted == AS_STORED:
        return on_device
    if stored is not None or gguf:
        what = "a GGUF file" if gguf else f"quantised already ({method})"
        raise ModelLoadError(
            f"--quantization is {wanted}, but the weights are {what}: leave it out, or take the 16-bit files"
        )
    if wanted == "bitsandbytes-4bit":
        four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        return {**on_device, "quantization_config": four}
    return {**on_device, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
