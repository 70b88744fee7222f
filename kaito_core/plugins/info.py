"""PluginInfo: what is known of one plugin, working or not. Data for the command line, logs and metrics."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["PluginInfo"]


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What is known of one plugin, working or not.

    Attributes:
        name: Name of its entry point, or of its file without the suffix.
        distribution: "name version" of the distribution that brings it, "" for a file.
        module: What the entry point names, or the file.
        state: "loaded", "failed", or "skipped" by the allow and deny lists.
        error: Why it failed or was skipped, in a sentence.
        traceback: The failure's traceback, "" without a failure.
        remarks: What is odd about a plugin that works, such as what it changed in the process.
        file: Where its code is, "" if unknown.
        import_seconds: Duration of its import.
        records: What it brings, as (kind, name): kinds are "preset", "node provider", "adapter source" and so on.
    """

    name: str
    distribution: str
    module: str
    state: Literal["loaded", "failed", "skipped"]
    error: str = ""
    traceback: str = ""
    remarks: tuple[str, ...] = ()
    file: str = ""
    import_seconds: float = 0.0
    records: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        origin = self.distribution or self.file
        return f"{self.name} ({origin})" if origin else self.name

    def names(self, kind: str) -> tuple[str, ...]:
        """Returns the names of its records of one kind."""
        return tuple(name for found, name in self.records if found == kind)
