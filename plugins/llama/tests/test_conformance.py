"""The Llama presets keep the rules of every preset."""

from kaito_core.testing.conformance import ModelPresetConformance
from kaito_llama import plugin


class TestLlamaPresets(ModelPresetConformance):
    """What the Llama package brings."""

    plugin = plugin
