"""Unpacking /data out of images on disk."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.image_files import docker_archive, layer, oci_layout, tarred
from kaito_core.api.archive import Limits
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


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_equal_layers_may_be_links(tmp_path: Path, mode: str) -> None:
    layers = [layer({"data/a": b"1"}), layer({"data/a": b"2"})]
    path = docker_archive(tmp_path / "image.tar", NAME, layers, {"2/layer.tar": "../0/layer.tar"}, mode)
    assert contents(unpack_data(NAME, path, tmp_path / "root")) == {"a": b"1"}


def test_a_layer_may_remove_data(tmp_path: Path) -> None:
    layers = [layer({"data/old": b"x"}), layer({"data": None}), layer({"data/new": b"y"})]
    layout = oci_layout(tmp_path / "layout", {NAME: layers})
    assert contents(unpack_data(NAME, layout, tmp_path / "root")) == {"new": b"y"}


def with_index(text: str) -> Callable[[Path], Path]:
    def make(tmp_path: Path) -> Path:
        layout = oci_layout(tmp_path / "layout", {NAME: LAYERS})
        (layout / "index.json").write_text(text)
        return layout

    return make


def with_layer(content: bytes) -> Callable[[Path], Path]:
    return lambda tmp_path: oci_layout(tmp_path / "layout", {NAME: [LAYERS[0], content]})


def with_links(links: dict[str, str]) -> Callable[[Path], Path]:
    return lambda tmp_path: docker_archive(tmp_path / "image.tar", NAME, LAYERS, links)


def with_manifest(text: bytes) -> Callable[[Path], Path]:
    def make(tmp_path: Path) -> Path:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "manifest.json").write_bytes(text)
        return tmp_path / "folder"

    return make


def without_blobs(tmp_path: Path) -> Path:
    layout = oci_layout(tmp_path / "layout", {NAME: LAYERS})
    for blob in (layout / "blobs" / "sha256").iterdir():
        blob.unlink()
    return layout


def cut(tmp_path: Path) -> Path:
    path = docker_archive(tmp_path / "image.tar", NAME, LAYERS)
    path.write_bytes(path.read_bytes()[:700])
    return path


def indexes(tmp_path: Path) -> Path:
    layout = oci_layout(tmp_path / "layout", {NAME: LAYERS})
    for _ in range(9):
        digest = hashlib.sha256((layout / "index.json").read_bytes()).hexdigest()
        (layout / "index.json").rename(layout / "blobs" / "sha256" / digest)
        (layout / "index.json").write_text(json.dumps({"manifests": [{"digest": f"sha256:{digest}"}]}))
    return layout


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
        (no_layout, "is not an OCI layout"),
        (no_tar, "is not an OCI layout or a `docker save` archive"),
        (lambda tmp: tmp / "absent", "does not exist"),
        (lambda tmp: oci_layout(tmp / "layout", {NAME: [layer({"etc/x": b""})]}), "has no folder /data"),
        (lambda tmp: oci_layout(tmp / "layout", {NAME: [b"\x28\xb5\x2f\xfd zstd"]}), "save the image with gzip"),
        (lambda tmp: oci_layout(tmp / "layout", {NAME: [layer({"data/../../x": b""})]}), "points out of the image"),
        (lambda tmp: oci_layout(tmp / "layout", {NAME: [layer({}, {"data/x": "/etc"})]}), "points out of the image"),
        (with_layer(layer({"data/../../home/.wh..wh..opq": b""})), "points out of the image"),
        (with_layer(layer({"data/../../x": None})), "points out of the image"),
        (with_layer(layer({}, {"data/x": "none"})), "holds the link 'data/x' to 'none', which leads nowhere"),
        (with_layer(LAYERS[0][:-12]), "is not a readable archive"),
        (with_layer(b""), "is not a readable archive: empty file"),
        (with_layer(layer({"data": b"a file"})), "has no folder /data"),
        (without_blobs, "is missing from the image; save it again"),
        (indexes, "has more than 8 indexes in one another"),
        (cut, "is not an OCI layout or a `docker save` archive: it "),
        (with_index("{nope"), "index.json is damaged: Invalid JSON"),
        (with_index(""), "index.json is damaged: Invalid JSON"),
        (with_index("[]"), "index.json is damaged: Input should be an object"),
        (with_index('{"manifests": [{"digest": 5}]}'), "index.json is damaged at manifests[0].digest: "),
        (with_index('{"manifests": [{"digest": "sha256:../../x"}]}'), "index.json is damaged at manifests[0].digest: "),
        (with_index('{"manifests": []}'), "the index of 'registry.example/team/adapter:1.0' is empty"),
        (with_index('{"manifests": [{"digest": "md5:0"}]}'), "the blob md5:0 is missing"),
        (with_index("[" * 100_000), "index.json is damaged: Invalid JSON"),
        (with_manifest(b"[]"), "is not an OCI layout (no index.json) or"),
        (with_manifest(b'{"Layers": []}'), "manifest.json is damaged: Input should be a valid"),
        (with_manifest(b'[{"Layers": ["../../etc/passwd"]}]'), "the layer '../../etc/passwd' is missing"),
        (with_manifest(b'[{"Layers": ["a\\u0000b"]}]'), "is not a readable archive: "),
        (with_manifest(b'[{"Layers": ["' + b"x" * 5000 + b'"]}]'), "is not a readable archive: "),
        (with_links({"2/layer.tar": "gone"}), "the layer '2/layer.tar' is missing from the archive"),
        (with_links({"2/layer.tar": "layer.tar"}), "the layer '2/layer.tar' is missing from the archive"),
    ],
)
def test_an_unusable_image_is_refused_with_its_path(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    path = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="--image") as caught:
        unpack_data(NAME, path, tmp_path / "root")
    assert words in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_image_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaito_core.local.images._LIMITS", Limits(bytes=1000))
    monkeypatch.setattr("kaito_core.local.images._LONGEST_DOCUMENT", 1000)
    layout = oci_layout(tmp_path / "layout", {NAME: [layer({"data/a": bytes(600), "data/b": bytes(600)})]})
    with pytest.raises(ConfigError, match=r"^--image: '.*layout' unpacks to more than 1,000 bytes"):
        unpack_data(NAME, layout, tmp_path / "root")
    (layout / "index.json").write_text(" " * 1001)
    with pytest.raises(ConfigError, match=r"^--image: index.json is larger than 1,000 bytes"):
        unpack_data(NAME, layout, tmp_path / "root")
    assert not (tmp_path / "root").exists()
