"""API keys: their names, read from a file or from the folder of a mounted Secret, and read again when that changes.

Who sends which, and what it may ask for, is in `http.auth` and `http.key_limits`.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from kaito_runtime.errors import ServeError

__all__ = ["ONLY_KEY", "ApiKeys"]

log = logging.getLogger(__name__)

ONLY_KEY = "default"  #: name of the key of a file that has nothing but a key
_LOOK_SECONDS = 1.0  # between two looks at the file
_NAMED = re.compile(r"([A-Za-z0-9][\w.-]{0,62}):\s+(\S+)")


class ApiKeys:
    """The keys that requests may carry.

    Args:
        keys: Key by name.
        path: Where they are from, to be read again when it changes; None: they stay.
        clock: Returns seconds.

    Attributes:
        error: Why the file cannot be read (any more), while the keys of before are valid; "" where it can.
    """

    def __init__(
        self, keys: Mapping[str, str], path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = dict(keys)
        self._path = path
        self._clock = clock
        self._looked = clock()
        self._seen = None if path is None else _state(path)
        self.error = ""

    @classmethod
    def of(cls, key: str) -> ApiKeys:
        """Returns a single key that stays."""
        return cls({ONLY_KEY: key})

    @classmethod
    def read(cls, path: Path) -> ApiKeys:
        """Returns the keys of a file or a folder.

        A folder has one file per key, under the key's name, as a mounted Secret does. A file has lines "NAME: KEY", or
        nothing but a key.

        Raises:
            ServeError: It cannot be read, or has no key or something else.
        """
        return cls(_read(path), path)

    def name_of(self, given: bytes) -> str | None:
        """Returns the name of the key in an Authorization header, compared in constant time; None for none of them."""
        self._look()
        found = None
        for name, key in self._keys.items():
            if hmac.compare_digest(given, f"Bearer {key}".encode()):
                found = name
        return found

    def has(self, key: str) -> bool:
        """Returns whether a text is one of the keys."""
        return key in self._keys.values()

    def _look(self) -> None:
        """Reads the keys again if they have changed. While that fails, those of before are valid."""
        if self._path is None or self._clock() - self._looked < _LOOK_SECONDS:
            return
        self._looked = self._clock()
        state = _state(self._path)
        if state == self._seen:
            return
        try:
            keys = _read(self._path)
        except ServeError as error:
            if str(error) != self.error:
                log.error("the API keys of before stay valid: %s", error)
            self.error = str(error)
            return
        log.info("API keys: %s", ", ".join(keys))
        self._keys, self._seen, self.error = keys, state, ""


def _read(path: Path) -> dict[str, str]:
    try:
        if path.is_dir():
            files = [each for each in sorted(path.iterdir()) if not each.name.startswith(".") and each.is_file()]
            keys = {each.name: each.read_text().strip() for each in files}
        else:
            keys = _keys_of(path.read_text(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if empty := [name for name, key in keys.items() if not key]:
        raise ServeError(f"{path}: the key '{empty[0]}' is empty")
    if not keys:
        raise ServeError(f"{path} has no key")
    for name, key in keys.items():
        if same := [other for other in keys if other != name and keys[other] == key]:
            raise ServeError(f"{path}: '{name}' and '{same[0]}' are the same key")
    return keys


def _keys_of(text: str, path: Path) -> dict[str, str]:
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if len(lines) == 1 and not _NAMED.fullmatch(lines[0][1]):
        return {ONLY_KEY: lines[0][1]}
    keys: dict[str, str] = {}
    for number, line in lines:
        named = _NAMED.fullmatch(line)
        if named is None:  # the line is not shown: it may have a key in it
            raise ServeError(f"{path}, line {number}: must be 'NAME: KEY'")
        if named[1] in keys:
            raise ServeError(f"{path}, line {number}: duplicate name '{named[1]}'")
        keys[named[1]] = named[2]
    return keys


def _state(path: Path) -> object:
    """Returns what differs once the keys have changed; None where there is nothing."""
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stats = [(each.name, each.stat()) for each in files]
    except OSError:
        return None
    return [(name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in stats]
