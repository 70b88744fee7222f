"""Mistral models for kaito: `presets` has them as data. transformers runs the architecture without changes."""
