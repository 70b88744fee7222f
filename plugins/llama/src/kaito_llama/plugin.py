"""Operator half of the Llama package: its presets. It imports neither torch nor transformers."""

from collections.abc import Sequence

from kaito_core import hookimpl
from kaito_core.api import ModelPreset
from kaito_llama.presets import PRESETS

__all__ = ["kaito_model_presets"]


@hookimpl
def kaito_model_presets() -> Sequence[ModelPreset]:
    """Returns the presets of Llama 2, 3.1 and 3.3, and of SmolLM2, which has the same architecture."""
    return PRESETS
