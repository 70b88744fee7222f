"""The Mistral presets keep the rules of every preset."""

from kaito_core.testing.conformance import ModelPresetConformance
from kaito_mistral import plugin


class TestMistralPresets(ModelPresetConformance):
    """What the Mistral package brings."""

    plugin = plugin
