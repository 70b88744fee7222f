"""The Mistral presets keep the rules of every preset."""

from kaito_mistral import plugin
from kaito_testing.conformance import ModelPresetConformance


class TestMistralPresets(ModelPresetConformance):
    """What the Mistral package brings."""

    plugin = plugin
