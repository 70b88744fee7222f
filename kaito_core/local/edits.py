"""The edits of a Workspace's file while it is served: what is to be served next, and what needs a new start."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kaito_core.errors import ConfigError
from kaito_core.reconcile.resolve import Resolved

__all__ = ["Edits"]


class Edits:
    """A file that is read again once its content has changed and stays for two looks: editors write in pieces.

    Args:
        path: The file.
        read: Reads and resolves the Workspace in it; raises ConfigError.
    """

    def __init__(self, path: Path, read: Callable[[], Resolved]) -> None:
        self.path = path
        self._read = read
        self._applied = self._seen = self._content()
        self._number = 1

    def next(self, served: Resolved) -> Resolved | None:
        """Returns what to serve after an edit, None where there was none since the last call.

        Args:
            served: What is served now.

        Raises:
            ConfigError: The file is wrong, or the edit needs a new start; what is served stays.
        """
        content, before = self._content(), self._seen
        self._seen = content
        if content is None or content == self._applied or content != before:
            return None
        self._applied = content
        found = self._read()
        if found.preset != served.preset:
            raise ConfigError(f"{self.path}: another preset is served after a new start of kaito up; the old one stays")
        self._number += 1
        workspace = found.workspace
        # Generations tell the runtime's answers apart; without an API server nobody else counts them.
        metadata = workspace.metadata.model_copy(update={"generation": self._number})
        return replace(found, workspace=workspace.model_copy(update={"metadata": metadata}))

    def _content(self) -> bytes | None:
        try:
            return self.path.read_bytes()
        except OSError:  # a moment between an editor's removal and its new file
            return None
