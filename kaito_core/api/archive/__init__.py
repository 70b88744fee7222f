"""Strangers' archives, unpacked safely: tar (plain, gzip, bzip2, xz), zip, and the layers of container images.

No name in an archive touches the disk before all of them are judged. Contents go to numbered files and names into a
`tree` in memory, in which no link is followed and a whiteout deletes a key of a dict. Then the tree is laid down beside
its destination, files before links, and renamed. What is there in the end are folders, files without executable bits,
and links to one another.
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
        archive: The file; its first bytes say what it is.
        to: Folder to make; it must not be there, or be empty.
        wanted: Says which members are unpacked; names are judged for all of them.
        limits: What is too much.

    Raises:
        ArchiveError: It is damaged, too large, or holds what points out of it; nothing is left.
        OSError: The disk refuses; nothing is left.
    """
    with archive.open("rb") as file:
        _unpack([file], to, wanted, limits, layers=False)


def unpack_layers(
    layers: Iterable[IO[bytes]], to: Path, *, wanted: Wanted = lambda path: True, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Unpacks an image's layers over one another into a new folder, wholly or not at all.

    Args:
        layers: The lowest first, each a tar file that can be sought in; each is closed when it is done.
        to: Folder to make; it must not be there, or be empty.
        wanted: Says which members are unpacked; names are judged for all of them.
        limits: What is too much, for all layers together; `members` and `ratio` for each.

    Raises:
        ArchiveError: A layer is damaged, too large, or holds what points out of the image; nothing is left.
        OSError: The disk refuses; nothing is left.
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
