"""Adapters in folders and archives that this process can see: volumes, folders of nodes, and paths on a laptop."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kaito_core.api.fetching import ARCHIVES, Access, Content, RemoteFile, is_adapter_file
from kaito_core.errors import FetchError

__all__ = ["FolderFetcher"]

_CHUNK = 1 << 20


class FolderFetcher:
    """Copies what lies in a folder; links are followed, as volumes and the hub's cache are full of them."""

    name = "file"
    schemes = ("file",)

    def files(self, uri: str, access: Access) -> Iterable[RemoteFile]:
        """Returns the files of the folder."""
        path = _path(uri)
        if path.is_file() and path.name.endswith(ARCHIVES):
            return (_file(path, "archive"),)
        if not path.is_dir():
            raise FetchError(f"{uri} is not a folder{'' if path.exists() else ': it does not exist'}")
        try:
            found = sorted(entry for entry in path.iterdir() if is_adapter_file(entry.name) and entry.is_file())
        except OSError as error:
            raise FetchError(f"{uri}: {error.strerror or error}") from error
        return [_file(entry, "file") for entry in found]


def _path(uri: str) -> Path:
    if ":" not in uri.partition("/")[0]:
        return Path(uri)
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise FetchError(f"{uri} must have three slashes: {parts.scheme}:///absolute/path")
    return Path(unquote(parts.path))


def _file(path: Path, kind: str) -> RemoteFile:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise FetchError(f"{path}: {error.strerror or error}") from error
    return RemoteFile(path.name, partial(_opened, path), size, kind="archive" if kind == "archive" else "file")


@contextmanager
def _opened(path: Path, offset: int, version: str) -> Iterator[Content]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            now = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
            start = offset if offset and version == now else 0
            file.seek(start)
            yield Content(iter(partial(file.read, _CHUNK), b""), start, status.st_size, now)
    except OSError as error:
        raise FetchError(f"{path}: {error.strerror or error}") from error
