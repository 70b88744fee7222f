"""The names of archives, judged, and the tree that they make.

Source: https://github.com/opencontainers/image-spec/blob/main/layer.md
"""

import os
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from kaito_core.api.archive.members import ArchiveError, Limits, Member, members_of, reading

__all__ = ["Tree", "Wanted"]

Wanted = Callable[[PurePosixPath], bool]

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_CHUNK = 1 << 20
_DEEPEST = 64  # folders in one another; the tree is walked by recursion
_LONGEST_NAME, _LONGEST_PATH = 255, 1024  # bytes; Linux's limits are 255 and 4096 with the destination's own path
_MOST_HOPS = 40  # links on the way of a link, Linux's own limit


@dataclass(frozen=True, slots=True)
class _File:
    content: Path


@dataclass(frozen=True, slots=True)
class _Link:
    target: str


class _Folder(dict[str, "_File | _Link | _Folder"]):
    implied = False  # by the path of what lies in it, with no member of its own


_Node = _File | _Link | _Folder


class Tree:
    """What is to be unpacked."""

    def __init__(self, contents: Path, wanted: Wanted, limits: Limits, *, layers: bool) -> None:
        self.contents = contents
        self.wanted = wanted
        self.limits = limits
        self.layers = layers
        self.what = "image" if layers else "archive"
        self.root = _Folder()
        self.entries = self.written = self.files = 0
        self.most = 0  # bytes that may have been written when the present archive is done

    def add(self, file: IO[bytes]) -> None:
        """Takes all members of an archive, or of a layer over those before."""
        with reading():
            packed = file.seek(0, os.SEEK_END)
        self.most = min(self.limits.bytes, self.written + self.limits.unpacked(packed))
        upper, whiteouts = _Folder(), []
        with members_of(file, self.limits, self.what) as members:
            for member in members:
                parts = self._parts(member.name)
                if self.layers and parts and parts[-1].startswith(_WHITEOUT):
                    whiteouts.append(parts)
                elif not parts and member.kind != "folder":
                    raise ArchiveError(f"holds a {member.kind} with the name {member.name!r}")
                elif parts and self.wanted(PurePosixPath(*parts)):
                    self._put(upper, parts, member)
        # A whiteout hides what lies in the layers below, wherever in its own layer it stands.
        for parts in whiteouts:
            self._hide(parts, upper)
        self._merge(self.root, upper, "")

    def lay_down(self, root: Path) -> None:
        """Writes the tree to a folder that is not there yet."""
        links = list(self._links([self.root], ""))  # all are judged before anything is written
        self._write(self.root, root)
        for name, link in links:
            (root / name).symlink_to(link.target)

    def _text(self, text: str) -> str:
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
            raise ArchiveError(f"holds the name {text!r}, which has characters that no name has")
        return text

    def _parts(self, name: str) -> tuple[str, ...]:
        path = PurePosixPath(self._text(name))
        parts = tuple(part for part in path.parts if part.strip("/"))
        if ".." in parts or (parts and path.is_absolute()):
            raise ArchiveError(f"holds {name!r}, which points out of the {self.what}")
        return parts  # none for the folder itself: "./", and "/" in some images

    def _count(self) -> None:
        self.entries += 1
        if self.entries > self.limits.members:
            raise ArchiveError(f"has more than {self.limits.members:,} members")

    def _put(self, upper: _Folder, parts: tuple[str, ...], member: Member) -> None:
        name = "/".join(parts)
        sizes = [len(part.encode()) for part in parts]
        if len(parts) > _DEEPEST or max(sizes) > _LONGEST_NAME or len(name.encode()) > _LONGEST_PATH:
            raise ArchiveError(f"holds {name[:80]!r}..., a name that is too long or too deep")
        folder = upper
        for part in parts[:-1]:
            if part not in folder:
                self._count()
                folder[part] = implied = _Folder()
                implied.implied = True
            folder = _as_folder(folder[part], name)
        self._count()
        old, new = folder.get(parts[-1]), self._node(upper, name, member)
        if old is None:
            folder[parts[-1]] = new
        elif isinstance(old, _Folder) and isinstance(new, _Folder):
            old.implied = False
        else:
            raise ArchiveError(f"holds {name!r} twice")

    def _node(self, upper: _Folder, name: str, member: Member) -> _Node:
        if member.kind == "folder":
            return _Folder()
        if member.kind == "link":
            return _Link(self._text(member.target))
        if member.kind == "file":
            with reading():
                source = member.open()
            return self._stored(source)
        if member.kind == "hard link":
            found: _Node | None = upper
            for part in self._parts(member.target):
                found = found.get(part) if isinstance(found, _Folder) else None
            if not isinstance(found, _File):
                raise ArchiveError(f"holds the hard link {name!r} to {member.target!r}, which is not a file before it")
            return self._stored(found.content.open("rb"))
        raise ArchiveError(f"holds the {member.kind} {name!r}; only files, folders and links are unpacked")

    def _stored(self, source: IO[bytes]) -> _File:
        self.files += 1
        path = self.contents / str(self.files)
        with source, path.open("xb") as target:
            while True:
                with reading():
                    chunk = source.read(_CHUNK)
                if not chunk:
                    return _File(path)
                self.written += len(chunk)  # what a header says of it is not believed
                if self.written > self.most:
                    raise ArchiveError(f"unpacks to more than {self.most:,} bytes, the limit for it")
                target.write(chunk)

    def _hide(self, parts: tuple[str, ...], upper: _Folder) -> None:
        name = "/".join(parts)
        hidden = parts[-1].removeprefix(_WHITEOUT)
        if hidden in ("", ".", ".."):
            raise ArchiveError(f"holds the whiteout {name!r}, which hides nothing that has a name")
        folder, above = self.root, upper
        for part in parts[:-1]:
            over = above.get(part)
            above = over if isinstance(over, _Folder) else _Folder()
            if part not in folder:
                return
            if isinstance(over, _Folder) and not isinstance(folder[part], _Folder):
                return  # a folder comes in the place of a link or file, below which nothing is
            folder = _as_folder(folder[part], name)
        if parts[-1] == _OPAQUE:
            folder.clear()
        else:
            folder.pop(hidden, None)

    def _merge(self, lower: _Folder, upper: _Folder, above: str) -> None:
        for part, node in upper.items():
            old = lower.get(part)
            if not isinstance(node, _Folder):
                lower[part] = node
            elif isinstance(old, _Folder):
                self._merge(old, node, f"{above}{part}/")
            elif old is not None and node.implied:
                _as_folder(old, f"{above}{part}/{next(iter(node))}")
            else:
                lower[part] = node

    def _links(self, way: list[_Folder], above: str) -> Iterator[tuple[str, _Link]]:
        """Yields the links with their names, and refuses those that lead nowhere; `way` leads to the present folder."""
        for part, node in way[-1].items():
            if isinstance(node, _Folder):
                yield from self._links([*way, node], f"{above}{part}/")
            elif isinstance(node, _Link):
                self._follow(list(way), f"{above}{part}", node)
                yield f"{above}{part}", node

    def _follow(self, way: list[_Folder], name: str, link: _Link) -> None:
        fault = f"holds the link {name!r} to {link.target!r}, which"
        if not link.target or link.target.startswith("/"):
            raise ArchiveError(f"{fault} points out of the {self.what}" if link.target else f"{fault} leads nowhere")
        hops, todo = 0, link.target.split("/")[::-1]
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                way.pop()
                if not way:
                    raise ArchiveError(f"{fault} points out of the {self.what}")
                continue
            node = way[-1].get(part)
            if isinstance(node, _Folder):
                way.append(node)
            elif isinstance(node, _Link) and hops < _MOST_HOPS:
                hops += 1
                todo += node.target.split("/")[::-1]  # an absolute one is refused for itself
            elif not isinstance(node, _File) or todo:
                raise ArchiveError(f"{fault} leads nowhere")

    def _write(self, folder: _Folder, path: Path) -> None:
        path.mkdir()
        for part, node in folder.items():
            if isinstance(node, _Folder):
                self._write(node, path / part)
            elif isinstance(node, _File):
                node.content.rename(path / part)


def _as_folder(node: _Node, name: str) -> _Folder:
    """Returns the node as a folder on the way to `name`."""
    if isinstance(node, _Folder):
        return node
    raise ArchiveError(f"holds {name!r}, which lies below a {'link' if isinstance(node, _Link) else 'file'}")
