"""What every command shares: settings, and the registry of plugins, made when it is first asked for."""

import sys
from dataclasses import dataclass, replace
from functools import cached_property

from kaito_core.plugins import PluginRegistry
from kaito_core.settings import Settings

__all__ = ["STRICT_EXIT_STATUS", "Session"]

STRICT_EXIT_STATUS = 2


@dataclass
class Session:
    """One run of the command line.

    Attributes:
        strict_plugins: Whether a broken plugin ends the run; the environment can say so too.
    """

    strict_plugins: bool = False

    @cached_property
    def settings(self) -> Settings:
        """Settings of the environment, with what the command line adds."""
        settings = Settings.from_env()
        return replace(settings, strict_plugins=settings.strict_plugins or self.strict_plugins)

    @cached_property
    def registry(self) -> PluginRegistry:
        """The plugins; broken ones are named on stderr, and end the run where plugins are strict."""
        registry = PluginRegistry.discover(self.settings)
        for failure in registry.failures:
            origin = f" of {failure.distribution}" if failure.distribution else ""
            print(
                f"plugin '{failure.name}'{origin} is left out: {failure.error} (see kaito plugins doctor)",
                file=sys.stderr,
            )
        if registry.failures and self.settings.strict_plugins:
            sys.exit(STRICT_EXIT_STATUS)
        return registry
