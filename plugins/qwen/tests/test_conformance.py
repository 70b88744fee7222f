"""The Qwen presets keep the rules of every preset."""

from kaito_qwen import plugin
from kaito_testing.conformance import ModelPresetConformance


class TestQwenPresets(ModelPresetConformance):
    """What the Qwen package brings."""

    plugin = plugin
