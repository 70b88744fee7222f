"""Conformance suites: subclass one in a test file, name your plugin, and pytest runs its rules.

```
class TestPresets(ModelPresetConformance):
    plugin = kaito_acme.plugin
```

Each rule is a test method, and its message says what to change. Override a rule that cannot hold for your plugin, and
say why there.
"""

from kaito_testing.conformance.presets import ModelPresetConformance
from kaito_testing.conformance.providers import NodeProviderConformance
from kaito_testing.conformance.sources import AdapterSourceConformance, reference
from kaito_testing.conformance.world import World

__all__ = [
    "AdapterSourceConformance",
    "ModelPresetConformance",
    "NodeProviderConformance",
    "World",
    "reference",
]
