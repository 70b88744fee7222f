"""Finds plugins, keeps broken ones out without harm, and indexes what the others bring, by name.

No kopf here and no cluster. Failures at start are kept as data, which the command line and the operator's log show.
"""

from kaito_core.plugins.info import PluginInfo
from kaito_core.plugins.registry import PluginRegistry

__all__ = ["PluginInfo", "PluginRegistry"]
