"""The Phi presets keep the rules of every preset."""

from kaito_core.testing.conformance import ModelPresetConformance
from kaito_phi import plugin


class TestPhiPresets(ModelPresetConformance):
    """What the Phi package brings."""

    plugin = plugin
