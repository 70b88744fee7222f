"""Presets: the record, its JSON Schema, and presets made from a model's own configuration."""

from kaito_core.api.preset.model import ModelPreset, Weights

__all__ = ["ModelPreset", "Weights"]
