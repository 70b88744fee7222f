"""Quantised weights: which arguments load them, and what is refused. Their layers are in `lora/test_layers.py`."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kaito_core.api.preset.memory import GIB, preset_memory
from kaito_core.api.preset.quantization import QUANTIZATIONS
from kaito_runtime.cli.serve import Quantization
from kaito_runtime.errors import ModelLoadError
from kaito_runtime.model.quantised import quantised_arguments
from kaito_testing.registry import example_preset

CPU = torch.device("cpu")
PLAIN, GPTQ = SimpleNamespace(), SimpleNamespace(quantization_config={"quant_method": "gptq"})


def arguments(config: Any, wanted: str, *, gguf: bool = False, ranks: int = 1) -> dict[str, Any]:
    return quantised_arguments(config, wanted, device=CPU, dtype=torch.bfloat16, gguf=gguf, ranks=ranks)


def test_weights_are_loaded_as_stored_or_quantised_onto_their_device() -> None:
    assert arguments(PLAIN, "auto") == arguments(PLAIN, "auto", gguf=True, ranks=2) == {}
    assert arguments(GPTQ, "auto") == {"device_map": {"": CPU}}
    four = arguments(PLAIN, "bitsandbytes-4bit")["quantization_config"]
    assert four.load_in_4bit and four.bnb_4bit_compute_dtype is torch.bfloat16
    assert arguments(PLAIN, "bitsandbytes-8bit")["quantization_config"].load_in_8bit


def test_what_cannot_be_quantised_or_shared_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelLoadError, match=r"--quantization is bitsandbytes-4bit, but .* quantised already \(gptq\)"):
        arguments(GPTQ, "bitsandbytes-4bit")
    with pytest.raises(ModelLoadError, match="but the weights are a GGUF file"):
        arguments(PLAIN, "bitsandbytes-8bit", gguf=True)
    for config, wanted in ((GPTQ, "auto"), (PLAIN, "bitsandbytes-4bit")):
        with pytest.raises(ModelLoadError, match="WORLD_SIZE is 2, but quantised weights cannot be shared"):
            arguments(config, wanted, ranks=2)


def test_the_flag_takes_what_presets_take() -> None:
    assert tuple(Quantization) == QUANTIZATIONS


def test_quantised_presets_need_less_memory_for_weights_alone() -> None:
    plain, four = (preset_memory(example_preset(quantization=how)) for how in ("auto", "bitsandbytes-4bit"))
    assert plain.weights == 13.5 * GIB and four.weights < plain.weights / 2
    assert (four.page, four.kv_per_token) == (plain.page, plain.kv_per_token)
