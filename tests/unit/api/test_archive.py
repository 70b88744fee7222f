"""Archives and layers that are hostile or broken: each is refused with the reason, and nothing is left behind."""

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.archive_files import (
    Entry,
    announced,
    changed,
    encrypted,
    folder,
    hard,
    link,
    sparse,
    tar,
    with_canary,
    zipped,
)
from kaito_core.api.archive import ArchiveError, Limits, unpack, unpack_layers

MIB = 1 << 20
LIMITS = Limits(bytes=8 * MIB, members=200, ratio=20)


@pytest.fixture(autouse=True)
def _bombs_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaito_core.api.archive.members._RATIO_FREE", MIB)


PLAIN = tar(Entry("a", b"x" * 2000), Entry("b", b"y" * 2000))
NOISE = os.urandom(5000)
ZEROS = bytes(4 * MIB)
LONG_NAME = tarfile.TarInfo("long")
LONG_NAME.type, LONG_NAME.size = tarfile.GNUTYPE_LONGNAME, 1

#: What, in words; the archive; what the refusal says. "CANARY" in names and targets becomes a path outside.
ARCHIVES: list[tuple[str, bytes, str]] = [
    ("parent", tar(Entry("../x")), "holds '../x', which points out of the archive"),
    ("parent inside", tar(Entry("a/../../x")), "points out of the archive"),
    ("parent at the end", tar(folder("a/..")), "points out of the archive"),
    ("no name in a zip", zipped(Entry("")), "holds a file with the name ''"),
    ("parent in a zip", zipped(Entry("../x")), "holds '../x', which points out of the archive"),
    ("absolute", tar(Entry("CANARY/x")), "points out of the archive"),
    ("absolute, two slashes", tar(Entry("/CANARY/x")), "points out of the archive"),
    ("absolute in a zip", zipped(Entry("CANARY/x")), "points out of the archive"),
    ("NUL", zipped(Entry("a\0.txt")), r"holds the name 'a\x00.txt', which has characters"),
    ("control character", tar(Entry("a\nb")), r"holds the name 'a\nb', which has characters"),
    ("no text", tar(Entry("a\udcff")), r"holds the name 'a\udcff', which has characters"),
    ("no name", tar(Entry("./")), "holds a file with the name './'"),
    ("long name", tar(Entry("x" * 256)), "too long or too deep"),
    ("long path", tar(Entry("/".join(["x" * 200] * 6))), "too long or too deep"),
    ("deep", tar(Entry("/".join("x" * 65))), "too long or too deep"),
    ("link outside", tar(link("a", "CANARY/file")), "which points out of the archive"),
    ("link above", tar(link("d/a", "../../canary/file")), "points out of the archive"),
    ("link above and back", tar(Entry("b"), link("a", "../to/b")), "points out of the archive"),
    (
        "link above by links",
        tar(folder("d"), link("d/up", ".."), link("a", "d/up/../canary")),
        "'d/up/../canary', which points out",
    ),
    ("link in a zip", zipped(link("a", "../canary/file")), "holds the link 'a' to '../canary/file', which points out"),
    ("dangling link", tar(link("a", "b")), "holds the link 'a' to 'b', which leads nowhere"),
    ("link through a file", tar(Entry("b"), link("a", "b/../c")), "leads nowhere"),
    ("link to nothing", tar(link("a", "")), "leads nowhere"),
    ("links in a ring", tar(link("a", "b"), link("b", "a")), "leads nowhere"),
    ("control character in a target", tar(link("a", "b\x1b")), r"holds the name 'b\x1b'"),
    ("below a link outside", tar(link("a", "CANARY"), Entry("a/file")), "holds 'a/file', which lies below a link"),
    ("below a link inside", tar(folder("b"), link("a", "b"), Entry("a/x")), "'a/x', which lies below a link"),
    ("below a file", tar(Entry("a"), Entry("a/x")), "holds 'a/x', which lies below a file"),
    ("hard link outside", tar(hard("a", "CANARY/file")), "which points out of the archive"),
    ("hard link above", tar(hard("a", "../canary/file")), "which points out of the archive"),
    ("dangling hard link", tar(hard("a", "b")), "holds the hard link 'a' to 'b', which is not a file before it"),
    ("hard link to a folder", tar(folder("b"), hard("a", "b")), "is not a file before it"),
    ("hard link to a link", tar(link("b", "CANARY/file"), hard("a", "b")), "is not a file before it"),
    ("hard link through a link", tar(link("b", "CANARY"), hard("a", "b/file")), "is not a file before it"),
    ("fifo", tar(Entry("a", kind=tarfile.FIFOTYPE)), "holds the fifo 'a'"),
    ("character device", tar(Entry("a", kind=tarfile.CHRTYPE)), "holds the device 'a'"),
    ("block device", tar(Entry("a", kind=tarfile.BLKTYPE)), "holds the device 'a'"),
    ("unknown kind", tar(Entry("a", kind=b"Z")), "holds the special file 'a'"),
    ("fifo in a zip", zipped(Entry("a", kind=tarfile.FIFOTYPE)), "holds the special file 'a'"),
    ("twice", tar(Entry("a", b"1"), Entry("./a", b"2")), "holds 'a' twice"),
    ("twice in a zip", zipped(Entry("a", b"1"), Entry("a", b"2")), "holds 'a' twice"),
    ("file and link", tar(Entry("a", b"1"), link("a", "b")), "holds 'a' twice"),
    ("file over a folder", tar(Entry("a/b"), Entry("a")), "holds 'a' twice"),
    ("members", tar(*[Entry(f"{n}") for n in range(201)]), "has more than 200 members"),
    ("members of a zip", zipped(*[Entry(f"{n}") for n in range(201)]), "has more than 200 members"),
    ("folders on the way", tar(*[Entry(f"{n}/" * 50 + "x") for n in range(5)]), "has more than 200 members"),
    ("bytes", tar(Entry("a", bytes(9 * MIB))), f"unpacks to more than {8 * MIB:,} bytes"),
    ("bytes that are holes", sparse(1 << 32), f"unpacks to more than {MIB:,} bytes"),
    ("bytes of hard links", tar(Entry("a", ZEROS), *[hard(f"{n}", "a") for n in range(9)]), f"than {8 * MIB:,} bytes"),
    ("gzip bomb", gzip.compress(tar(Entry("a", ZEROS))), f"unpacks to more than {MIB:,} bytes"),
    ("bzip2 bomb", bz2.compress(tar(Entry("a", ZEROS))), f"unpacks to more than {MIB:,} bytes"),
    ("xz bomb", lzma.compress(tar(Entry("a", ZEROS))), f"unpacks to more than {MIB:,} bytes"),
    ("bomb after the end", gzip.compress(tar(Entry("a")) + ZEROS), f"unpacks to more than {MIB:,} bytes"),
    ("zip bomb", zipped(Entry("a", ZEROS)), f"unpacks to more than {MIB:,} bytes"),
    ("zip bomb in pieces", zipped(*[Entry(f"{n}", bytes(MIB // 2)) for n in range(3)]), f"than {MIB:,} bytes"),
    (
        "zip bomb by bzip2",
        zipped(Entry("a", ZEROS), method=zipfile.ZIP_BZIP2),
        "holds 'a' compressed by method 12; zip it with deflate",
    ),
    (
        "header bomb",
        tar(Entry("a"), pax_headers={"comment": "x" * (17 * MIB)}),
        "has a header of 17,",
    ),
    ("headers in headers", (LONG_NAME.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * 2000, "is not a readable archive"),
    ("size below zero", announced(-1024), "is not a readable archive"),
    ("nothing", b"", "is not a readable archive: empty file"),
    ("text", b"<html>not found</html>" * 100, "is not a readable archive"),
    ("cut content", PLAIN[:1000], "is not a readable archive: unexpected end of data"),
    ("cut header", PLAIN[: 512 + 2048 + 100], "is not a readable archive"),
    ("damaged header", changed(PLAIN, 512 + 2048 + 150, b"9"), "is not a readable archive: a header in its middle"),
    ("cut gzip", gzip.compress(tar(Entry("a", NOISE)))[:3000], "is not a readable archive: Compressed file ended"),
    ("damaged gzip", changed(gzip.compress(tar(Entry("a", NOISE))), 3000, b"xxx"), "is not a readable archive"),
    ("gzip with a wrong sum", changed(gzip.compress(PLAIN), -6, b"xx"), "is not a readable archive: CRC check failed"),
    ("damaged bzip2", changed(bz2.compress(tar(Entry("a", NOISE))), 3000, b"xxx"), "is not a readable archive"),
    ("damaged xz", changed(lzma.compress(tar(Entry("a", NOISE))), 3000, b"xxx"), "is not a readable archive"),
    ("zstd", b"\x28\xb5\x2f\xfd" + NOISE, "is compressed with zstd, which cannot be read here; save the archive with"),
    ("cut zip", zipped(Entry("a", NOISE))[:3000], "is not a readable archive: File is not a zip file"),
    ("damaged zip", changed(zipped(Entry("a", b"x" * 5000)), 31, b"\xff" * 9), "is not a readable archive: Error -3"),
    ("zip with a wrong sum", changed(zipped(Entry("a", NOISE), method=0), 99, b"xxx"), "Bad CRC-32 for file 'a'"),
    ("encrypted zip", encrypted(), "holds 'a' encrypted; zip it without a password"),
]

OLD, LINKED = tar(Entry("data/old"), Entry("data/keep")), tar(link("data/x", "CANARY"))

LAYERS: list[tuple[str, Sequence[bytes], str]] = [
    ("opaque outside", [OLD, tar(Entry("data/../../canary/.wh..wh..opq"))], "which points out of the image"),
    ("whiteout outside", [OLD, tar(Entry("data/../../canary/.wh.file"))], "which points out of the image"),
    ("whiteout by an absolute path", [OLD, tar(Entry("CANARY/.wh.file"))], "which points out of the image"),
    ("whiteout of nothing", [OLD, tar(Entry("data/.wh."))], "the whiteout 'data/.wh.', which hides nothing"),
    ("whiteout of the folder", [OLD, tar(Entry("data/.wh.."))], "the whiteout 'data/.wh..', which hides nothing"),
    ("whiteout of the parent", [OLD, tar(Entry("data/.wh..."))], "the whiteout 'data/.wh...', which hides nothing"),
    ("whiteout below a link", [LINKED, tar(Entry("data/x/.wh.file"))], "which lies below a link"),
    ("opaque below a link", [LINKED, tar(Entry("data/x/.wh..wh..opq"))], "which lies below a link"),
    ("file below a link", [LINKED, tar(Entry("data/x/file", b"new"))], "holds 'data/x/file', which lies below a link"),
    ("deep below a link", [LINKED, tar(Entry("data/x/a/b"))], "holds 'data/x/a', which lies below a link"),
    ("whiteout below a file", [OLD, tar(Entry("data/old/.wh.x"))], "which lies below a file"),
    ("link whose target goes", [tar(link("data/a", "b"), Entry("data/b")), tar(Entry("data/.wh.b"))], "leads nowhere"),
    ("hard link to another layer", [OLD, tar(hard("data/a", "data/old"))], "is not a file before it"),
    ("link outside, linked again", [LINKED, tar(link("data/y", "x/file"))], "which points out of the image"),
    ("bytes together", [tar(Entry("data/a", bytes(5 * MIB)))] * 2, f"unpacks to more than {8 * MIB:,} bytes"),
    ("damaged", [OLD, gzip.compress(OLD)[:-12]], "is not a readable archive"),
    ("zstd", [OLD, b"\x28\xb5\x2f\xfd" + NOISE], "is compressed with zstd, which cannot be read here; save the image"),
]


def snapshot(root: Path) -> dict[str, object]:
    """Everything below a folder, with contents, without following links."""
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (mode, what)
    return found


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def world(root: Path) -> tuple[Path, Path]:
    """Makes a folder with a file that nothing may touch; returns it and where to unpack beside it."""
    (root / "canary").mkdir()
    (root / "canary" / "file").write_text("canary")
    return root / "canary", root / "to"


@pytest.mark.parametrize(("archive", "reason"), [row[1:] for row in ARCHIVES], ids=[row[0] for row in ARCHIVES])
def test_archives_that_are_refused(tmp_path: Path, archive: bytes, reason: str) -> None:
    canary, to = world(tmp_path)
    (tmp_path / "archive").write_bytes(with_canary(archive, canary))
    before = snapshot(tmp_path)
    with pytest.raises(ArchiveError) as caught:
        unpack(tmp_path / "archive", to, limits=LIMITS)
    assert reason in str(caught.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("layers", "reason"), [row[1:] for row in LAYERS], ids=[row[0] for row in LAYERS])
def test_layers_that_are_refused(tmp_path: Path, layers: Sequence[bytes], reason: str) -> None:
    canary, to = world(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(ArchiveError) as caught:
        unpack_layers([io.BytesIO(with_canary(layer, canary)) for layer in layers], to, limits=LIMITS)
    assert reason in str(caught.value)
    assert snapshot(tmp_path) == before


FILES = (folder("./"), folder("d"), Entry("d/a", b"a", mode=0o6755), link("d/l", "./a"), link("m", "d"))


@pytest.mark.parametrize(
    "archive",
    [
        tar(*FILES),
        gzip.compress(tar(*FILES)),
        bz2.compress(tar(*FILES)),
        lzma.compress(tar(*FILES)),
        tar(*FILES, format=tarfile.USTAR_FORMAT),
        tar(*FILES)[: 512 * 6],  # some programs write no blank blocks at the end
        zipped(*[entry for entry in FILES if entry.kind != tarfile.DIRTYPE]),
    ],
    ids=["tar", "gzip", "bzip2", "xz", "ustar", "no end", "zip"],
)
def test_what_is_unpacked(tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "archive").write_bytes(archive)
    unpack(tmp_path / "archive", tmp_path / "new" / "to", limits=LIMITS)
    to = tmp_path / "new" / "to"
    assert contents(to) == {"d/a": b"a", "d/l": b"a"}
    assert os.readlink(to / "d" / "l") == "./a"
    assert os.readlink(to / "m") == "d"
    assert (to / "d" / "a").stat().st_mode & 0o7111 == 0
    assert [path.name for path in to.parent.iterdir()] == ["to"]


def test_hard_links_become_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(tar(Entry("a", b"a"), hard("b", "a")))
    unpack(tmp_path / "archive", tmp_path / "to")
    assert contents(tmp_path / "to") == {"a": b"a", "b": b"a"}
    assert (tmp_path / "to" / "a").stat().st_nlink == 1


def unpack_data(to: Path, *layers: bytes) -> None:
    unpack_layers(map(io.BytesIO, layers), to, wanted=lambda path: path.parts[0] == "data", limits=LIMITS)


def test_what_is_not_wanted_may_be_of_any_kind(tmp_path: Path) -> None:
    others = [Entry("dev/null", kind=tarfile.CHRTYPE), link("bin/sh", "/bin/busybox"), Entry("big", bytes(9 * MIB))]
    unpack_data(tmp_path / "to", tar(*others, *others, Entry("data/a", b"a")))
    assert contents(tmp_path / "to") == {"data/a": b"a"}


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (tar(Entry("../x")), r"holds '\.\./x', which points out of the image"),
        (tar(*[Entry(f"{n}") for n in range(201)]), "has more than 200 members"),
        (gzip.compress(tar(Entry("bomb", ZEROS))), f"unpacks to more than {MIB:,} bytes"),
        (gzip.compress(announced(1 << 40)), f"unpacks to more than {MIB:,} bytes"),  # said before it is unpacked
        # Newer Pythons take such a header for no header.
        (tar(Entry("a"))[:512] + announced(-512), "'a' has -512 bytes|a header in its middle is damaged"),
    ],
    ids=["parent", "members", "bomb", "announced bomb", "size below zero"],
)
def test_what_is_not_wanted_has_limits_too(tmp_path: Path, layer: bytes, reason: str) -> None:
    with pytest.raises(ArchiveError, match=reason):
        unpack_data(tmp_path / "to", tar(Entry("data/a", b"a")), layer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ([(Entry("a", b"1"), Entry("b")), (Entry("a", b"2"), Entry(".wh.b"))], {"a": b"2"}),
        ([(Entry("d/a"), Entry("d/b")), (Entry(".wh.d"),)], {}),
        ([(Entry("d/a"), Entry("d/b")), (Entry("d/.wh..wh..opq"), Entry("d/c"))], {"d/c": b""}),
        ([(Entry("d/a"),), (Entry("d/c"), Entry("d/.wh..wh..opq"))], {"d/c": b""}),  # of its own layer it hides nothing
        ([(Entry("a"),), (Entry("a", b"2"), Entry(".wh.a"))], {"a": b"2"}),
        ([(Entry("d/a"),), (Entry("d", b"file"),)], {"d": b"file"}),
        ([(Entry("d", b"file"),), (folder("d"), Entry("d/a"))], {"d/a": b""}),
        ([(link("d", "/etc"),), (folder("d"), Entry("d/a"))], {"d/a": b""}),  # the link is gone: nothing follows it
        (
            [(link("d", "/etc"),), (folder("d"), Entry("d/.wh..wh..opq"), Entry("d/a"))],
            {"d/a": b""},
        ),  # as overlayfs has it
        ([(link("d", "/etc"),), (Entry("d/a"), folder("d"))], {"d/a": b""}),
        ([(Entry("a"),), (Entry("none/.wh.x"), Entry(".wh.none"))], {"a": b""}),
    ],
)
def test_layers_over_one_another(tmp_path: Path, layers: list[tuple[Entry, ...]], left: dict[str, bytes]) -> None:
    unpack_layers([io.BytesIO(tar(*layer)) for layer in layers], tmp_path / "to")
    assert contents(tmp_path / "to") == left


def test_whiteouts_are_names_like_others_in_an_archive(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(tar(Entry("a"), Entry(".wh.a", b"x")))
    unpack(tmp_path / "archive", tmp_path / "to")
    assert contents(tmp_path / "to") == {"a": b"", ".wh.a": b"x"}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(tar(Entry("a")))
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine").touch()
    before = snapshot(tmp_path)
    with pytest.raises(OSError, match="not empty"):
        unpack(tmp_path / "archive", tmp_path / "to")
    assert snapshot(tmp_path) == before


def test_a_full_disk_is_no_fault_of_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "archive").write_bytes(tar(Entry("a")))
    before = snapshot(tmp_path)

    def full(path: Path, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(tmp_path / "archive", tmp_path / "to")
    assert snapshot(tmp_path) == before


def test_importing_the_vocabulary_loads_no_archives() -> None:
    code = "import sys, kaito_core.api; print([m for m in ('kaito_core.api.archive', 'tarfile') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


PARTS = st.sampled_from(
    [*"aaabbbcd", *".", "..", "", "canary", "file", ".wh.a", ".wh.b", ".wh.", ".wh..", ".wh...", ".wh..wh..opq"]
)
NAMES = st.builds(
    lambda root, parts: root + "/".join(parts),
    st.sampled_from([*[""] * 12, "/", "CANARY/", "../"]),
    st.lists(PARTS, min_size=1, max_size=4),
)
KINDS = st.sampled_from([*[tarfile.REGTYPE] * 6, *[tarfile.DIRTYPE, tarfile.SYMTYPE] * 2, tarfile.LNKTYPE])
ENTRIES = st.builds(Entry, NAMES, st.binary(max_size=3), KINDS, NAMES, st.integers(0, 0o7777))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(ENTRIES, max_size=5), min_size=1, max_size=3), st.sampled_from(["tar", "zip", "layers"]))
def test_nothing_outside_is_ever_touched(layers: list[list[Entry]], form: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        canary, to = world(Path(scratch))
        archives = [
            (zipped if form == "zip" else tar)(
                *[
                    Entry(
                        entry.name.replace("CANARY", str(canary)),
                        b"" if entry.target and entry.kind != tarfile.REGTYPE else entry.content,
                        entry.kind,
                        entry.target.replace("CANARY", str(canary)) if entry.kind != tarfile.REGTYPE else "",
                        entry.mode,
                    )
                    for entry in entries
                ]
            )
            for entries in layers
        ]
        (Path(scratch) / "archive").write_bytes(archives[0])
        before = snapshot(Path(scratch))
        try:
            if form == "layers":
                unpack_layers(map(io.BytesIO, archives), to, limits=LIMITS)
            else:
                unpack(Path(scratch) / "archive", to, limits=LIMITS)
        except ArchiveError:
            assert snapshot(Path(scratch)) == before
            return
        after = snapshot(Path(scratch))
        outside = {name: what for name, what in after.items() if PurePosixPath(name).parts[0] != "to"}
        assert outside == before
        for path in to.rglob("*"):
            mode = path.lstat().st_mode
            assert stat.S_ISDIR(mode) or stat.S_ISLNK(mode) or (stat.S_ISREG(mode) and not mode & 0o7111)
            assert path.resolve(strict=True).is_relative_to(to.resolve())
