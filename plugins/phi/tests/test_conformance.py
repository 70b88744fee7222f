"""The Phi presets keep the rules of every preset."""

from kaito_phi import plugin
from kaito_testing.conformance import ModelPresetConformance


class TestPhiPresets(ModelPresetConformance):
    """What the Phi package brings."""

    plugin = plugin
