"""Packing adapters into images: the same bytes, whoever packs them, and readable by the rest of the house."""

import json
import os
import struct
import tarfile
from pathlib import Path

import pytest

from helpers.adapter_files import write_adapter
from helpers.image_files import docker_archive, layer
from kaito_core.errors import ConfigError
from kaito_core.local.images import unpack_data
from kaito_core.local.pack import pack, read_packed

NAME = "adapters/style:1"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = write_adapter(tmp_path / "style")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "optimizer.pt").write_bytes(b"left out")
    return folder


@pytest.fixture
def busybox(tmp_path: Path) -> Path:
    program = tmp_path / "busybox"
    program.write_bytes(b"\x7fELF" + bytes(14) + struct.pack("<H", 62) + b"rest")
    return program


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: f.read() for m in tar if (f := tar.extractfile(m)) is not None}


def test_the_same_files_give_the_same_bytes(adapter: Path, tmp_path: Path) -> None:
    pack(adapter, tmp_path / "one.tar", NAME)
    for path in adapter.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    pack(adapter, tmp_path / "two.tar", NAME)
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    (adapter / "tokenizer.json").write_text("[]")
    pack(adapter, tmp_path / "three.tar", NAME)
    assert (tmp_path / "one.tar").read_bytes() != (tmp_path / "three.tar").read_bytes()


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_data_comes_out_as_it_went_in(adapter: Path, tmp_path: Path, form: str) -> None:
    image = pack(adapter, tmp_path / "image.tar", NAME)
    assert not image.has_shell
    archive = tmp_path / "image.tar"
    if form == "docker":
        with tarfile.open(tmp_path / "docker.tar", "w") as to, tarfile.open(archive) as tar:
            for member in tar:
                if member.name != "index.json":
                    to.addfile(member, tar.extractfile(member))
        archive = tmp_path / "docker.tar"
    found = unpack_data(NAME, archive, tmp_path / "root")
    assert {path.name for path in found.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
    }
    for path in found.iterdir():
        assert path.read_bytes() == (adapter / path.name).read_bytes()


def test_an_image_without_programs_is_for_every_machine(adapter: Path, tmp_path: Path) -> None:
    pack(adapter, tmp_path / "image.tar", NAME)
    index = json.loads(members(tmp_path / "image.tar")["index.json"])
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]


def test_busybox_brings_what_copies(adapter: Path, busybox: Path, tmp_path: Path) -> None:
    image = pack(adapter, tmp_path / "image.tar", NAME, busybox=busybox)
    assert image.has_shell and len(image.manifests) == 1
    contents = members(tmp_path / "image.tar")
    saved = json.loads(contents["manifest.json"])
    (tmp_path / "shell.tar").write_bytes(contents[saved[0]["Layers"][0]])
    with tarfile.open(tmp_path / "shell.tar") as tar:
        assert tar.getmember("bin/busybox").mode == 0o755
        assert {m.name: m.linkname for m in tar if m.issym()} == {
            f"bin/{name}": "busybox" for name in ("sh", "cp", "mkdir")
        }


def test_a_base_image_lies_below(adapter: Path, tmp_path: Path) -> None:
    base = docker_archive(tmp_path / "base.tar", "busybox:1", [layer({"bin/sh": b"shell"})])
    image = pack(adapter, tmp_path / "image.tar", NAME, base=base)
    assert image.has_shell
    assert (unpack_data(NAME, tmp_path / "image.tar", tmp_path / "root") / "tokenizer.json").is_file()


def test_what_cannot_be_packed_is_named(adapter: Path, busybox: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no adapter_config.json"):
        pack(tmp_path, tmp_path / "image.tar", NAME)
    with pytest.raises(ConfigError, match=r"--busybox: .* is no program for amd64 or arm64"):
        pack(adapter, tmp_path / "image.tar", NAME, busybox=adapter / "tokenizer.json")
    with pytest.raises(ConfigError, match="give one of them"):
        pack(adapter, tmp_path / "image.tar", NAME, busybox=busybox, base=busybox)
    with pytest.raises(ConfigError, match=r"--name: must be an image's name"):
        pack(adapter, tmp_path / "image.tar", "Upper Case")
    assert not (tmp_path / "image.tar").exists()


def test_a_damaged_archive_is_not_read(adapter: Path, tmp_path: Path) -> None:
    pack(adapter, tmp_path / "image.tar", NAME)
    content = (tmp_path / "image.tar").read_bytes()
    (tmp_path / "image.tar").write_bytes(content.replace(b"q_proj", b"k_proj"))
    with pytest.raises(ConfigError, match="does not have its digest"), read_packed(tmp_path / "image.tar"):
        pass
