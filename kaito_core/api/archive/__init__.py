"""Unpacks archives that nobody vouches for: tar (plain, gzip, bzip2, xz), zip, and the layers of container images.

No name in an archive touches the disk before all of them are checked. Contents go to numbered files, and names into a
`tree` in memory, in which no link is followed and a whiteout deletes a key of a dict. Then the tree is written beside
its destination, files before links, and renamed. The result are folders, files without executable bits, and links to
one another.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from kaito_core.api.archive.members import DEFAULT_LIMITS, ArchiveError, Limits
from kaito_core.api.archive.tree import Tree, Wanted

__all__ = ["DEFAULT_LIMITS", "ArchiveError", "Limits", "unpack", "unpack_layers"]


def unpack(archive: Path, to: Path, *, wanted: Wanted = lambda path: True, limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpacks a tar or zip file into a new folder, wholly or not at all.

    Args:
        archive: The file; its first bytes tell the format.
        to: Folder to create; it must not exist, or be empty.
        wanted: Returns whether a member is unpacked; the names of all members are checked.
        limits: Largest sizes and counts.

    Raises:
        ArchiveError: The archive is damaged or too large, or a member points out of it; nothing is left behind.
        OSError: The disk is full or cannot be written; nothing is left behind.
    """
    with archive.open("rb") as file:
        _unpack([file], to, wanted, limits, layers=False)


def unpack_layers(
    layers: Iterable[IO[bytes]], to: Path, *, wanted: Wanted = lambda path: True, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Unpacks an image's layers over one another into a new folder, wholly or not at all.

    Args:
        layers: Seekable tar files, the lowest layer first; each is closed once it is unpacked.
        to: Folder to create; it must not exist, or be empty.
        wanted: Returns whether a member is unpacked; the names of all members are checked.
        limits: Largest sizes and counts of all layers together; `members` and `ratio` of each.

    Raises:
        ArchiveError: A layer is damaged or too large, or a member points out of the image; nothing is left behind.
        OSError: The disk is full or cannot be written; nothing is left behind.
    """
    _unpack(layers, to, wanted, limits, layers=True)


def _unpack(files: Iterable[IO[bytes]], to: Path, wanted: Wanted, limits: Limits, *, layers: bool) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as scratch:
        contents, laid = Path(scratch) / "contents", Path(scratch) / "laid"
        contents.mkdir()
        tree = Tree(contents, wanted, limits, layers=layers)
        for file in files:
            tree.add(file)
        tree.lay_down(laid)
        laid.rename(to)
