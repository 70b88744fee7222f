"""The members of a stranger's archive, read within bounds: tar (plain, gzip, bzip2, xz) and zip.

Nothing is written here and no name is judged: `tree` does both.
"""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from kaito_core.errors import KaitoError

__all__ = ["DEFAULT_LIMITS", "ArchiveError", "Limits", "Member", "members_of", "reading"]

#: Longest header that is read, in bytes: tarfile and zipfile read one whole, however long it says it is.
_LONGEST_HEADER = 16 << 20
#: Bytes that any archive may unpack to, whatever its own size: a few kilobytes of zeros are no attack.
_RATIO_FREE = 64 << 20
_CHUNK = 1 << 20
_LONGEST_TARGET = 4096  # bytes of a link's target, Linux's own limit


class ArchiveError(KaitoError):
    """An archive is damaged, or asks for what no honest one needs. The message reads on after the archive's name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may hold.

    Attributes:
        bytes: Of all files together, counted as they are written.
        members: Entries, those included that are not unpacked, and the folders on the way to them.
        ratio: Bytes that may come out for each byte of the archive.
    """

    bytes: int = 16 << 30
    members: int = 100_000
    ratio: int = 200

    def unpacked(self, packed: int) -> int:
        """Returns how many bytes may come out of an archive of `packed` bytes."""
        return max(_RATIO_FREE, self.ratio * packed)


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: As the archive has it; not to be trusted.
        kind: "file", "folder", "link" (symbolic), "hard link", or the name of what is never unpacked.
        target: Where a link of either kind points; not to be trusted.
        open: Gives the content of a file, until the archive is closed; to be read under `reading`.
    """

    name: str
    kind: str
    target: str
    open: Callable[[], IO[bytes]]


@contextmanager
def reading() -> Iterator[None]:
    """Turns what goes wrong while an archive's bytes are read into an ArchiveError."""
    try:
        yield
    except ArchiveError:
        raise
    except Exception as error:
        # tarfile, zipfile and the decompressors raise what their parsers stumble over: besides their own errors
        # ValueError, KeyError, EOFError, OSError, RuntimeError, RecursionError, NotImplementedError, struct.error ...
        raise ArchiveError(f"is not a readable archive: {error or type(error).__name__}") from error


@contextmanager
def members_of(file: IO[bytes], limits: Limits, what: str = "archive") -> Iterator[Iterator[Member]]:
    """Gives the members of an archive, in its order; what kind it is its first bytes say, not its name.

    Args:
        file: The archive, which can be sought in; it is closed at the end.
        limits: Of these, `members` and `ratio` hold here.
        what: Word for the archive in messages.

    Raises:
        ArchiveError: It is damaged or of an unknown kind, now or while the members are read.
    """
    with reading():
        packed = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(10)
        file.seek(0)
    if head.startswith(b"PK"):
        with _Bounded(file, packed) as stream:
            with reading():
                archive = zipfile.ZipFile(stream)
            with archive:
                yield _counted(_zip_members(archive), limits)
        return
    with _Bounded(_decompressed(file, head, what), limits.unpacked(packed)) as stream:
        with reading():
            tape = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - closed below
        with tape:
            yield _counted(_tar_members(tape, stream), limits)


class _Bounded(io.BufferedReader):
    """A stream that gives `most` bytes in all, and at once no more than a header may have."""

    def __init__(self, raw: Any, most: int) -> None:
        super().__init__(raw)
        self.most = most
        self.last = b""  # what was read last

    def read(self, size: int | None = -1, /) -> bytes:
        # Only zipfile reads "all", of the tail in which a zip file's directory is announced: 64 KiB.
        wanted = _LONGEST_HEADER if size is None or size < 0 else size
        if wanted > _LONGEST_HEADER:
            raise ArchiveError(f"has a header of {wanted:,} bytes, at most {_LONGEST_HEADER:,} are read")
        self.last = super().read(wanted)
        self._check(self.tell())
        return self.last

    def seek(self, target: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET:
            self._check(target)  # before: a decompressor seeks by unpacking
        return super().seek(target, whence)

    def _check(self, position: int) -> None:
        if position > self.most:
            raise ArchiveError(f"unpacks to more than {self.most:,} bytes, the limit for one of its size")


def _decompressed(file: IO[bytes], head: bytes, what: str) -> Any:
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if head.startswith(b"BZh") and head[4:] == b"1AY&SY":
        import bz2  # not in every build of Python, nor is lzma

        return bz2.BZ2File(file)
    if head.startswith(b"\xfd7zXZ\0"):
        import lzma

        return lzma.LZMAFile(file)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        raise ArchiveError(f"is compressed with zstd, which cannot be read here; save the {what} with gzip")
    return file


def _counted(members: Iterator[Member], limits: Limits) -> Iterator[Member]:
    for number, member in enumerate(members, start=1):
        if number > limits.members:
            raise ArchiveError(f"has more than {limits.members:,} members")
        yield member


def _tar_members(tape: tarfile.TarFile, stream: _Bounded) -> Iterator[Member]:
    while True:
        with reading():
            info = tape.next()
        if info is None:
            break
        if info.size < 0:
            raise ArchiveError(f"is not a readable archive: {info.name!r} has {info.size} bytes")
        tape.members.clear()  # type: ignore[attr-defined] # tarfile keeps all that it has seen, and we need none of it
        yield Member(info.name, _tar_kind(info), info.linkname, partial(_open_tar, tape, info))
    # tarfile takes a damaged header for the end, where blank blocks or nothing should be.
    if stream.last.strip(b"\0"):
        raise ArchiveError("is not a readable archive: a header in its middle is damaged")
    with reading():
        while stream.read(_CHUNK):  # checksums come last
            pass


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isreg():
        return "file"
    if info.isdir():
        return "folder"
    if info.issym():
        return "link"
    if info.islnk():
        return "hard link"
    return "fifo" if info.isfifo() else "device" if info.isdev() else "special file"


def _open_tar(tape: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    return tape.extractfile(info) or io.BytesIO()


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        opened = partial(_open_zip, archive, info)
        form = stat.S_IFMT(info.external_attr >> 16)
        kind, target = "special file", ""
        if info.filename.endswith("/"):  # is_dir() fails where there is no name
            kind = "folder"
        elif form in (0, stat.S_IFREG):
            kind = "file"
        elif form == stat.S_IFLNK:
            with reading(), opened() as content:
                kind, target = "link", content.read(_LONGEST_TARGET).decode("utf-8", "surrogateescape")
        yield Member(info.orig_filename, kind, target, opened)  # `filename` is cut at a NUL


def _open_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.flag_bits & 1:
        raise ArchiveError(f"holds {info.filename!r} encrypted; zip it without a password")
    # zipfile unpacks bzip2 and LZMA a block at a time, whatever it grows to.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"holds {info.filename!r} compressed by method {info.compress_type}; zip it with deflate")
    return archive.open(info)
