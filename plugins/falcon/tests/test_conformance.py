"""The rules that every preset must keep."""

from kaito_falcon import plugin
from kaito_testing.conformance import ModelPresetConformance


class TestFalconPresets(ModelPresetConformance):
    """The presets of the Falcon package."""

    plugin = plugin
