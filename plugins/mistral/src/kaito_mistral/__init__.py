"""Mistral models for kaito: `presets` are data, transformers runs them as they are."""
