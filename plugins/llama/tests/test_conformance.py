"""The Llama presets keep the rules of every preset."""

from kaito_llama import plugin
from kaito_testing.conformance import ModelPresetConformance


class TestLlamaPresets(ModelPresetConformance):
    """What the Llama package brings."""

    plugin = plugin
