"""Unpacking /data out of images on disk."""

from pathlib import Path

import pytest

from helpers.image_files import docker_archive, layer, oci_layout, tarred
from kaito_core.errors import ConfigError
from kaito_core.local.images import unpack_data

NAME = "registry.example/team/adapter:1.0"
LAYERS = (
    layer({"bin/sh": b"ignored", "data/adapter_config.json": b"old", "./data/gone": b"x", "data/sub/a": b"a"}),
    layer({"data/adapter_config.json": b"new", "data/gone": None}),
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def image(tmp_path: Path, form: str) -> Path:
    if form == "docker archive":
        return docker_archive(tmp_path / "image.tar", NAME, LAYERS)
    layout = oci_layout(tmp_path / "layout", {NAME: LAYERS})
    return layout if form == "oci folder" else tarred(layout, tmp_path / "layout.tar")


@pytest.mark.parametrize("form", ["oci folder", "oci archive", "docker archive"])
def test_later_layers_replace_and_remove_files(tmp_path: Path, form: str) -> None:
    data = unpack_data(NAME, image(tmp_path, form), tmp_path / "root")
    assert contents(data) == {"adapter_config.json": b"new", "sub/a": b"a"}
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["data"]  # nothing else of the image is written


def test_the_reference_chooses_among_several_images(tmp_path: Path) -> None:
    other = [layer({"data/which": b"other"})]
    layout = oci_layout(tmp_path / "layout", {"other:2": other, NAME: [layer({"data/which": b"mine"})]})
    assert contents(unpack_data(NAME, layout, tmp_path / "root")) == {"which": b"mine"}


def test_an_opaque_folder_hides_what_lay_in_it(tmp_path: Path) -> None:
    layers = [layer({"data/old": b"x"}), layer({"data/.wh..wh..opq": b"", "data/new": b"y"})]
    layout = oci_layout(tmp_path / "layout", {NAME: layers})
    assert contents(unpack_data(NAME, layout, tmp_path / "root")) == {"new": b"y"}


def damaged(tmp_path: Path) -> Path:
    layout = oci_layout(tmp_path / "layout", {NAME: LAYERS})
    next((layout / "blobs" / "sha256").iterdir()).write_bytes(b"other bytes")
    return layout


def no_layout(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def no_tar(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("text")
    return tmp_path / "file"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (damaged, "does not have its digest"),
        (no_layout, "neither an OCI layout"),
        (no_tar, "neither an OCI layout nor a `docker save` archive"),
        (lambda tmp: tmp / "absent", "does not exist"),
        (lambda tmp: oci_layout(tmp / "layout", {NAME: [layer({"etc/x": b""})]}), "has no folder /data"),
        (lambda tmp: oci_layout(tmp / "layout", {NAME: [b"\x28\xb5\x2f\xfd zstd"]}), "save the image with gzip"),
        (lambda tmp: oci_layout(tmp / "layout", {NAME: [layer({"data/../../x": b""})]}), "points out of the image"),
        (lambda tmp: oci_layout(tmp / "layout", {NAME: [layer({}, {"data/x": "/etc"})]}), "points out of the image"),
    ],
)
def test_an_unusable_image_is_refused_with_its_path(tmp_path: Path, make: object, words: str) -> None:
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(ConfigError, match="--image") as caught:
        unpack_data(NAME, path, tmp_path / "root")
    assert words in str(caught.value)
    assert not (tmp_path / "x").exists()
