"""What every command shares: the settings, and the registry of plugins, made at first use."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kaito_core.plugins import PluginRegistry
from kaito_core.settings import Settings

__all__ = ["STRICT_EXIT_STATUS", "Session"]

STRICT_EXIT_STATUS = 2


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


@dataclass
class Session:
    """One run of the command line.

    Attributes:
        strict_plugins: Whether a broken plugin ends the run; the settings can ask for it too.
        config: Settings file; None: the one that the environment names.
        report: Called with a message for each broken plugin.
    """

    strict_plugins: bool = False
    config: Path | None = None
    report: Callable[[str], None] = _to_stderr

    @cached_property
    def settings(self) -> Settings:
        """The settings of the environment and the file, with the options of the command line."""
        settings = Settings.from_env(config=self.config)
        return settings.model_copy(update={"strict_plugins": settings.strict_plugins or self.strict_plugins})

    @cached_property
    def registry(self) -> PluginRegistry:
        """The plugins. Broken ones are reported; with strict plugins they end the run."""
        registry = PluginRegistry.discover(self.settings)
        for failure in registry.failures:
            origin = f" of {failure.distribution}" if failure.distribution else ""
            self.report(f"plugin '{failure.name}'{origin} is left out: {failure.error}; see kaito plugins doctor")
        if registry.failures and self.settings.strict_plugins:
            sys.exit(STRICT_EXIT_STATUS)
        return registry
