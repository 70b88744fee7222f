"""The rules that every preset must keep."""

from kaito_mistral import plugin
from kaito_testing.conformance import ModelPresetConformance


class TestMistralPresets(ModelPresetConformance):
    """The presets of the Mistral package."""

    plugin = plugin
