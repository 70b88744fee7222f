"""Falcon for kaito. The operator reads `plugin` and `presets`; the runtime reads `recipe`, which needs torch."""
