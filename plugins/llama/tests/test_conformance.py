"""The rules that every preset must keep."""

from kaito_llama import plugin
from kaito_testing.conformance import ModelPresetConformance


class TestLlamaPresets(ModelPresetConformance):
    """The presets of the Llama package."""

    plugin = plugin
