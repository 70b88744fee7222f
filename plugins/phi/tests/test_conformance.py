"""The rules that every preset must keep."""

from kaito_phi import plugin
from kaito_testing.conformance import ModelPresetConformance


class TestPhiPresets(ModelPresetConformance):
    """The presets of the Phi package."""

    plugin = plugin
