"""What every command shares: settings, and the registry of plugins, made when it is first asked for."""

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
        strict_plugins: Whether a broken plugin ends the run; the environment can say so too.
        config: Settings file; None: the one that the environment names.
        report: Says which plugins are broken.
    """

    strict_plugins: bool = False
    config: Path | None = None
    report: Callable[[str], None] = _to_stderr

    @cached_property
    def settings(self) -> Settings:
        """Settings of the environment and of the file, with what the command line adds."""
        settings = Settings.from_env(config=self.config)
        return settings.model_copy(update={"strict_plugins": settings.strict_plugins or self.strict_plugins})

    @cached_property
    def registry(self) -> PluginRegistry:
        """The plugins; broken ones are named, and end the run where plugins are strict."""
        registry = PluginRegistry.discover(self.settings)
        for failure in registry.failures:
            origin = f" of {failure.distribution}" if failure.distribution else ""
            self.report(f"plugin '{failure.name}'{origin} is left out: {failure.error} (see kaito plugins doctor)")
        if registry.failures and self.settings.strict_plugins:
            sys.exit(STRICT_EXIT_STATUS)
        return registry
