"""The rules that every preset must keep."""

from kaito_qwen import plugin
from kaito_testing.conformance import ModelPresetConformance


class TestQwenPresets(ModelPresetConformance):
    """The presets of the Qwen package."""

    plugin = plugin
