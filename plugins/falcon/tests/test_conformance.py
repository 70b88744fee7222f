"""The Falcon presets keep the rules of every preset."""

from kaito_falcon import plugin
from kaito_testing.conformance import ModelPresetConformance


class TestFalconPresets(ModelPresetConformance):
    """What the Falcon package brings."""

    plugin = plugin
