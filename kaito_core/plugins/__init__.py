"""Finds plugins, keeps broken ones out without harm, and indexes what the others bring, by name.

No kopf here and no cluster. Failures at start are kept as data, for whoever starts the process to show.
"""

from kaito_core.plugins.info import PluginInfo
from kaito_core.plugins.registry import PluginRegistry

__all__ = ["PluginInfo", "PluginRegistry"]
