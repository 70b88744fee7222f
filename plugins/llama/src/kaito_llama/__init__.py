"""Llama models for kaito: `plugin` and `presets` are for the operator, `recipe` is for the runtime."""
