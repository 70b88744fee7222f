"""Operator half of the Falcon package: its presets. It imports neither torch nor transformers."""

from collections.abc import Sequence

from kaito_core import hookimpl
from kaito_core.api import ModelPreset
from kaito_falcon.presets import PRESETS

__all__ = ["kaito_model_presets"]


@hookimpl
def kaito_model_presets() -> Sequence[ModelPreset]:
    """Returns the four Falcon presets."""
    return PRESETS
