"""Sources: the folder, digest and files that each adapter is loaded from, and when it is to be loaded (again).

Nothing is read here but sizes and times of files; `manager` loads.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kaito_core.api.fetching import ADAPTER_FILES
from kaito_core.api.serving import ServedAdapter
from kaito_runtime.errors import AdapterLoadError

__all__ = ["Source", "Sources"]

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 300.0  # between two tries; each pause is twice the one before


@dataclass(frozen=True, slots=True)
class Source:
    """What an adapter is loaded from. A different value is a different version of the adapter.

    Attributes:
        path: The folder.
        digest: "sha256:..." that the files must have, or None.
        files: (name, size in bytes, modification time in ns) of each file that exists.
    """

    path: Path
    digest: str | None = None
    files: tuple[tuple[str, int, int], ...] = ()

    @property
    def complete(self) -> bool:
        """Whether the adapter's configuration exists. Files may still be missing: then loading says which."""
        return any(name == ADAPTER_FILES[0] for name, _, _ in self.files)


@dataclass(frozen=True, slots=True)
class _Retry:
    """When a failed load is tried again although the files are the same."""

    at_seconds: float
    pause_seconds: float


class Sources:
    """The source of each adapter as it was last loaded, or failed to load.

    Args:
        adapters_dir: Folder with one folder per adapter; None: adapters have absolute paths.
        clock: Returns seconds that only grow.
    """

    def __init__(self, adapters_dir: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = adapters_dir or Path()
        self._clock = clock
        self._tried: dict[str, Source] = {}
        self._seen: dict[str, Source] = {}  # in the round before
        self._retries: dict[str, _Retry] = {}

    def find(self, adapter: ServedAdapter) -> Source:
        """Returns what there is to load now. Asks the file system, so it belongs in a thread."""
        folder = self._root / (adapter.path or adapter.name)  # an absolute path stands alone
        files = []
        for name in ADAPTER_FILES:
            try:
                status = (folder / name).stat()
            except OSError:
                continue
            files.append((name, status.st_size, status.st_mtime_ns))
        return Source(folder, adapter.digest, tuple(files))

    def is_due(self, name: str, source: Source) -> bool:
        """Returns whether an adapter is to be loaded: it is new or has changed, or a retry is due."""
        if source != self._tried.get(name):
            self._retries.pop(name, None)
            return True
        return name in self._retries and self._clock() >= self._retries[name].at_seconds

    def is_arriving(self, name: str, source: Source, *, at_start: bool) -> bool:
        """Returns whether files may still be copied: some are missing, or have changed since the last call.

        Args:
            at_start: What is there when the process starts is complete.
        """
        seen = self._seen.get(name)
        self._seen[name] = source
        return not source.complete or (not at_start and seen != source)

    def succeeded(self, name: str, source: Source) -> None:
        """Notes that an adapter was loaded."""
        self._tried[name] = source
        self._retries.pop(name, None)

    def failed(self, name: str, source: Source, error: AdapterLoadError) -> None:
        """Notes that an adapter could not be loaded, and plans the next try where the same files may load later."""
        self._tried[name] = source
        before = self._retries.pop(name, None)
        if not error.transient:
            return
        pause_seconds = _FIRST_PAUSE_SECONDS if before is None else before.pause_seconds * 2
        pause_seconds = min(pause_seconds, _LONGEST_PAUSE_SECONDS)
        self._retries[name] = _Retry(self._clock() + pause_seconds, pause_seconds)
        log.info("adapter '%s': next try in %g s", name, pause_seconds)

    def forget(self, name: str) -> None:
        """Forgets an adapter: it is to be loaded whatever there is."""
        self._tried.pop(name, None)
        self._retries.pop(name, None)
