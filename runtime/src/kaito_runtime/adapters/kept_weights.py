"""Weights on a volume that outlives pods: fetched once, whoever comes first, and checked before they are used.

A folder of weights is complete when its manifest is there, which lists every file with its size and SHA-256. It appears
by one rename, so that no reader ever sees half of it. What an interrupted fetch left is taken up again.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from kaito_runtime.adapters.fetch import FetchError, fetch_model

__all__ = ["MANIFEST", "keep_model"]

log = logging.getLogger(__name__)

MANIFEST = ".kaito-weights.json"
_HUB_FOLDER = ".cache"  # what the hub's client notes about a download
_SAY_SECONDS = 30.0  # between two words about waiting for another pod
_POLL_SECONDS = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)

Fetch = Callable[[str, str, Path], None]
Sleep = Callable[[float], None]


def keep_model(
    repository: str, revision: str, to: Path, *, fetch: Fetch = fetch_model, sleep: Sleep = time.sleep
) -> bool:
    """Puts a model's weights into a folder of a lasting volume, unless they are there. Returns whether it fetched.

    Several pods may run this at once: one fetches, the others wait for it. Where the volume has no locks, each fetches
    for itself, and the first to end counts.

    Args:
        repository: Repository on the hub.
        revision: Branch, tag or commit.
        to: The folder.
        fetch: Downloads a repository's revision into a folder, and keeps what is there already.
        sleep: Waits.

    Raises:
        FetchError: The hub refuses, the volume is full or cannot be written, or what is there is damaged.
    """
    what = {"repository": repository, "revision": revision}
    if _is_complete(to, what):
        return False
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with _alone(to.with_name(f".{to.name}.lock"), sleep) as locked:
            if _is_complete(to, what):
                return False
            part = to.with_name(f".{to.name}.part" if locked else f".{to.name}.part-{socket.gethostname()}")
            fetch(repository, revision, part)
            _seal(part, what)
            _publish(part, to, what)
    except OSError as error:
        raise _explained(to, error) from error
    except FetchError as error:
        if (cause := _os_error(error)) is not None and cause.errno in _FULL:
            raise _explained(to, cause) from error
        raise
    return True


def _is_complete(folder: Path, what: Mapping[str, str]) -> bool:
    """Returns whether a folder holds all of a model's files in their size.

    Raises:
        FetchError: The manifest is of other weights, or a file is missing or has another size.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        files, found = manifest["files"], {key: manifest[key] for key in what}
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FetchError(f"{folder / MANIFEST} cannot be read ({error}): remove the folder, to fetch again") from error
    if found != what:
        raise FetchError(f"{folder} holds {found['repository']}@{found['revision']}: remove it, or use another volume")
    for name, facts in files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else -1
        if size != facts["size"]:
            state = f"has {size} bytes instead of {facts['size']}" if size >= 0 else "is missing"
            raise FetchError(f"{path} {state}: the volume was changed; remove the folder, to fetch again")
    return True


def _seal(folder: Path, what: Mapping[str, str]) -> None:
    """Writes the manifest of a folder whose files are complete, and has the volume keep all of it."""
    shutil.rmtree(folder / _HUB_FOLDER, ignore_errors=True)
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            os.fsync(file.fileno())
        files[str(path.relative_to(folder))] = {"size": path.stat().st_size, "sha256": digest.hexdigest()}
    with (folder / MANIFEST).open("w") as manifest:
        json.dump({**what, "files": files}, manifest, indent=1)
        manifest.flush()
        os.fsync(manifest.fileno())


def _publish(part: Path, to: Path, what: Mapping[str, str]) -> None:
    """Gives a complete folder its name; where another pod was first, its folder stays."""
    try:
        part.rename(to)
    except OSError:
        if not _is_complete(to, what):
            raise
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _alone(path: Path, sleep: Sleep) -> Iterator[bool]:
    """Holds a lock that ends with this process however that ends; gives False where the volume has no locks."""
    with path.open("w") as file:
        waited = 0.0
        while (held := _lock(file)) is False:
            if waited % _SAY_SECONDS == 0:
                log.info("another pod fetches these weights; waiting for it")
            sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS
        yield held is True
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


def _lock(file: IO[str]) -> bool | None:
    """Returns whether the lock could be taken; None where the volume has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _os_error(error: BaseException | None) -> OSError | None:
    """Returns the operating system's error that an error came from."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _explained(to: Path, error: OSError) -> FetchError:
    if error.errno in _FULL:
        return FetchError(f"{to.parent}: the volume for weights is full; make the claim or the disk larger: {error}")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        words = f"the volume for weights cannot be written by user {os.getuid()}, and does not hold them"
        return FetchError(f"{to.parent}: {words}: {error}")
    return FetchError(f"{to}: {error.strerror or error}")
