"""Where a fetch puts files before they are an adapter, and how they become one: as a whole or not at all."""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kaito_core.api.fetching import ADAPTER_FILES

__all__ = ["locked", "place", "staging"]

_SOURCE = "source"  # says what the files in a staging folder belong to


@contextmanager
def staging(to: Path, identity: str) -> Iterator[Path]:
    """Gives the folder in which the adapter for `to` is fetched, with what an earlier fetch of it left there.

    One process at a time has it. The caller removes it where nothing of it is of use.

    Args:
        to: Where the adapter will be.
        identity: What is fetched; files of anything else are removed.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    # Where the adapter's folder is a mount of its own, what lies beside it is another file system, or read-only.
    folder = to / ".fetching" if os.path.ismount(to) else to.with_name(f".{to.name}.fetching")
    with locked(folder, create=True):
        mark = hashlib.sha256(identity.encode()).hexdigest()
        source = folder / _SOURCE
        if not source.is_file() or source.read_text() != mark:
            _empty(folder)
            source.write_text(mark)
        yield folder


@contextmanager
def locked(path: Path, *, create: bool = False) -> Iterator[None]:
    """Holds a lock on a file or, with `create`, on a folder that is made; other processes wait."""
    while True:
        if create:
            path.mkdir(exist_ok=True)
        handle = os.open(path, os.O_RDONLY if create else os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(OSError):
                # The process that had it may have removed it.
                if os.path.samestat(os.fstat(handle), path.stat()):
                    yield
                    return
        finally:
            os.close(handle)


def place(made: Path, to: Path, old: Path) -> None:
    """Makes a folder the adapter's folder.

    Args:
        made: The folder, in the staging folder.
        to: Where it belongs; what is there is replaced as a whole.
        old: Where what was there goes.
    """
    made.chmod(0o755)  # the server may be another user
    if not os.path.ismount(to):
        with suppress(FileNotFoundError):
            to.rename(old)
        try:
            made.rename(to)
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
    # A mount cannot be replaced. The configuration comes last, since an adapter without one is not complete.
    (to / ADAPTER_FILES[0]).unlink(missing_ok=True)
    for path in sorted(made.iterdir(), key=lambda path: path.name == ADAPTER_FILES[0]):
        os.replace(path, to / path.name)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
