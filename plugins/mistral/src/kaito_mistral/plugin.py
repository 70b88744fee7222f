"""The Mistral presets. There is no runtime half: transformers' models run without changes."""

from collections.abc import Sequence

from kaito_core import hookimpl
from kaito_core.api import ModelPreset
from kaito_mistral.presets import PRESETS

__all__ = ["kaito_model_presets"]


@hookimpl
def kaito_model_presets() -> Sequence[ModelPreset]:
    """Returns the Mistral presets."""
    return PRESETS
