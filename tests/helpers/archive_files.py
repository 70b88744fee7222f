"""Writes small archives, honest and hostile."""

import io
import stat
import tarfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One member; `target` is of a link."""

    name: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o644

    def info(self) -> tarfile.TarInfo:
        info = tarfile.TarInfo(self.name)
        info.size, info.type, info.linkname, info.mode = len(self.content), self.kind, self.target, self.mode
        return info


def folder(name: str) -> Entry:
    return Entry(name, kind=tarfile.DIRTYPE)


def link(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.SYMTYPE, target=target)


def hard(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, target=target)


def tar(*entries: Entry, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tape:
        for entry in entries:
            tape.addfile(entry.info(), io.BytesIO(entry.content))
    return buffer.getvalue()


def zipped(*entries: Entry, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for entry in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.compress_type = entry.name, method
            form = {tarfile.SYMTYPE: stat.S_IFLNK, tarfile.FIFOTYPE: stat.S_IFIFO}.get(entry.kind, stat.S_IFREG)
            info.external_attr = (form | entry.mode) << 16
            archive.writestr(info, entry.target or entry.content)
    return buffer.getvalue()


def changed(content: bytes, at: int, new: bytes) -> bytes:
    at %= len(content)
    return content[:at] + new + content[at + len(new) :]


def announced(size: int) -> bytes:
    """A file whose header says that it has so many bytes."""
    info = Entry("a").info()
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def sparse(size: int) -> bytes:
    """A file of `size` bytes, in GNU's old form, of which none is in the archive."""
    info = Entry("a").info()
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0" % size + b"%011o\0" % 0  # where the only piece lies, and its length
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def encrypted() -> bytes:
    content = bytearray(zipped(Entry("a", b"x")))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def with_canary(archive: bytes, canary: Path) -> bytes:
    """Puts the path of the canary in place of CANARY, in tar headers with their sums."""
    if b"CANARY" not in archive:
        return archive
    if archive.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            return zipped(*[Entry(name.replace("CANARY", str(canary))) for name in opened.namelist()])
    with tarfile.open(fileobj=io.BytesIO(archive)) as tape:
        return tar(
            *[
                Entry(
                    member.name.replace("CANARY", str(canary)),
                    kind=member.type,
                    target=member.linkname.replace("CANARY", str(canary)),
                )
                for member in tape
            ]
        )
