"""Conformance suites for plugin authors: subclass one in a test file, say what is yours, and pytest runs its rules.

```
class TestPresets(ModelPresetConformance):
    plugin = kaito_acme.plugin
```

Each rule is one test method; its message says what to change. A rule that cannot hold for a plugin is overridden in the
subclass, where the reason can be written down.
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
