"""Adapters by digest in a folder that processes share: one fetches, the others copy.

Whoever reads the folder reads the adapters in it, whatever credentials they were fetched with. An entry may be removed
at any time.
"""

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from kaito_core.api.fetching import SECRET_PREFIX, SECRET_VARIABLE, digest_of
from kaito_core.fetch.staging import locked

__all__ = ["Cache"]

_log = logging.getLogger(__name__)


class Cache:
    """The cache in a folder.

    Args:
        folder: Is made if it does not exist. What cannot be read or written there is logged, and the fetch goes on.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def turn(self, uris: tuple[str, ...], digest: str | None, environ: Mapping[str, str]) -> Iterator["Turn"]:
        """Waits until no other process fetches the same, and gives what there is now.

        Args:
            uris: What is fetched.
            digest: What the adapter must hash to. Without one only what came while this process waited is taken,
                since the source may have something else by now.
            environ: The environment; a fetch with other credentials is another one.
        """
        began = time.time_ns()
        key = digest.replace(":", "-") if digest else _key(uris, environ)
        lock = self._folder / "locks" / key
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()
        except OSError as error:
            _log.warning("the cache cannot be used: %s: %s", self._folder, error.strerror)
            yield Turn(None, digest, "", began)
            return
        with locked(lock):
            yield Turn(self._folder, digest, key, began)


class Turn:
    """The cache while one process may fetch something."""

    def __init__(self, folder: Path | None, digest: str | None, key: str, began: int) -> None:
        self._folder, self._digest, self._began = folder, digest, began
        self._note = (folder or Path()) / "locks" / f"{key}.digest"  # of what is not pinned

    def copy(self, to: Path) -> bool:
        """Copies the adapter into a new folder, and returns whether it was there."""
        if self._folder is None:
            return False
        digest = self._digest or self._fresh()
        entry = self._folder / digest.replace(":", "-")
        if not digest or not entry.is_dir():
            return False
        try:
            shutil.copytree(entry, to, copy_function=shutil.copyfile)
            if digest_of(to) == digest:
                os.utime(entry)  # so that entries nobody uses can be told
                return True
            _log.warning("%s does not have its digest any more, and is removed", entry)
            shutil.rmtree(entry, ignore_errors=True)
        except OSError as error:
            _log.warning("%s cannot be read: %s", entry, error.strerror or error)
        shutil.rmtree(to, ignore_errors=True)
        return False

    def keep(self, adapter: Path, digest: str) -> None:
        """Puts an adapter into the cache."""
        if self._folder is None:
            return
        entry = self._folder / digest.replace(":", "-")
        try:
            if not entry.is_dir():
                with tempfile.TemporaryDirectory(dir=self._folder, prefix=".new-") as scratch:
                    copy = Path(scratch) / "copy"
                    shutil.copytree(adapter, copy, copy_function=shutil.copyfile)
                    with suppress(FileExistsError):
                        copy.rename(entry)
            if self._digest is None:
                self._note.write_text(digest)
        except OSError as error:
            _log.warning("the cache cannot be written: %s: %s", self._folder, error.strerror or error)

    def _fresh(self) -> str:
        try:
            return self._note.read_text() if self._note.stat().st_mtime_ns >= self._began else ""
        except OSError:
            return ""


def _key(uris: tuple[str, ...], environ: Mapping[str, str]) -> str:
    names = sorted(name for name in environ if name.startswith(SECRET_PREFIX) or name in (SECRET_VARIABLE, "HF_TOKEN"))
    secrets = "\n".join(f"{name}={environ[name]}" for name in names)
    salt = hashlib.sha256("\n".join(uris).encode()).digest()
    # Slow on purpose: the name of a file must not help to guess a password.
    return hashlib.scrypt(secrets.encode(), salt=salt, n=1 << 12, r=8, p=1, dklen=20).hex()
