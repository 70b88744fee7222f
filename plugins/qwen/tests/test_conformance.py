"""The Qwen presets keep the rules of every preset."""

from kaito_core.testing.conformance import ModelPresetConformance
from kaito_qwen import plugin


class TestQwenPresets(ModelPresetConformance):
    """What the Qwen package brings."""

    plugin = plugin
