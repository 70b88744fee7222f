"""The Falcon presets keep the rules of every preset."""

from kaito_core.testing.conformance import ModelPresetConformance
from kaito_falcon import plugin


class TestFalconPresets(ModelPresetConformance):
    """What the Falcon package brings."""

    plugin = plugin
