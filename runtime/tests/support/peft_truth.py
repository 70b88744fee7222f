"""What PEFT computes with an adapter at a strength, for tests of adapters that cannot be merged."""

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from kaito_runtime.testing.models import load_fp32


def wrapped(base: Any, folder: Path, strength: float) -> Any:
    """Returns PEFT's model of a base and an adapter, its scalings times a strength."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(base, folder).eval()
    for module in model.modules():
        if hasattr(module, "scaling") and isinstance(module.scaling, dict):
            module.scaling = {name: strength * scaling for name, scaling in module.scaling.items()}
    return model


def truth(model: Path, folder: Path | None, strength: float, sequence: list[int]) -> torch.Tensor:
    """Returns the logits of a sequence, with an adapter or, for None, without."""
    base = load_fp32(model)
    served = base if folder is None else wrapped(base, folder, strength)
    with torch.no_grad():
        logits: torch.Tensor = served(torch.tensor([sequence])).logits[0]
    return logits
