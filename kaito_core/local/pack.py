"""Packs an adapter into a container image on disk, without Docker: the same folder gives the same bytes.

The archive is an OCI layout and what `docker load` reads, in one. The operator copies /data with the image's own
/bin/sh, which a layer of an image that has one (`base`), or a static busybox, brings.
Source: https://github.com/opencontainers/image-spec
"""

import hashlib
import io
import json
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kaito_core.builtin.image import is_image_reference
from kaito_core.errors import ConfigError
from kaito_core.local.images import opened_layers

__all__ = ["Blob", "PackedImage", "pack", "packed", "read_packed"]

_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_KEPT = (".json", ".safetensors", ".jinja", ".model", ".txt", ".md")  # tokenizers and notes; no pickles, no programs
_LEFT_OUT = ("training_args.json", "trainer_state.json")
_MACHINES = {62: "amd64", 183: "arm64"}  # e_machine of ELF
_APPLETS = ("sh", "cp", "mkdir")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """One content of an image.

    Attributes:
        digest: "sha256:...".
        size: Bytes.
        media_type: What it is.
        path: The file with the content.
    """

    digest: str
    size: int
    media_type: str
    path: Path

    def descriptor(self, **more: Any) -> dict[str, Any]:
        """Returns how an index or a manifest names it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size, **more}


@dataclass(frozen=True, slots=True)
class PackedImage:
    """An image as its contents.

    Attributes:
        blobs: Layers and configurations.
        manifests: One per platform.
        index: Names the manifests.
        has_shell: Whether the operator can copy /data out of it.
    """

    blobs: tuple[Blob, ...]
    manifests: tuple[Blob, ...]
    index: Blob
    has_shell: bool


def pack(folder: Path, to: Path, name: str, *, base: Path | None = None, busybox: Path | None = None) -> PackedImage:
    """Writes the image of an adapter as one archive.

    Args:
        folder: As PEFT saves it.
        to: File to write.
        name: What `docker load` calls the image, such as "adapters/style:1".
        base: An image on disk whose layers lie below, for its /bin/sh and cp.
        busybox: A static busybox of the nodes' machine, in place of a base.

    Raises:
        ConfigError: The folder has no adapter, or base or busybox cannot be used.
    """
    if not is_image_reference(name):
        raise ConfigError(f"--name: must be an image's name such as adapters/style:1, got '{name}'")
    with packed(folder, base=base, busybox=busybox) as image:
        first = json.loads(image.manifests[0].path.read_bytes())
        docker = [
            {
                "Config": _place(first["config"]["digest"]),
                "RepoTags": [name],
                "Layers": [_place(layer["digest"]) for layer in first["layers"]],
            }
        ]
        annotated = json.loads(image.index.path.read_bytes())
        for manifest in annotated["manifests"]:
            manifest["annotations"] = {"io.containerd.image.name": name}
        beside = to.with_name(f".{to.name}.part")
        try:
            with tarfile.open(beside, "w", format=tarfile.PAX_FORMAT) as tar:
                _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
                _add(tar, "index.json", _encoded(annotated))
                _add(tar, "manifest.json", _encoded(docker))
                for blob in sorted({blob.digest: blob for blob in (*image.blobs, *image.manifests)}.items()):
                    with blob[1].path.open("rb") as file:
                        tar.addfile(_member(_place(blob[0]), blob[1].size), file)
            beside.rename(to)
        finally:
            beside.unlink(missing_ok=True)
        return image


@contextmanager
def packed(folder: Path, *, base: Path | None = None, busybox: Path | None = None) -> Iterator[PackedImage]:
    """Yields the image of an adapter as contents in a folder that is gone afterwards. Arguments as of `pack`.

    Raises:
        ConfigError: As `pack`.
    """
    for name in _ADAPTER:
        if not (folder / name).is_file():
            raise ConfigError(f"'{folder}' has no {name}; is it a PEFT adapter?")
    with tempfile.TemporaryDirectory(prefix="kaito-pack-") as scratch:
        layers, architectures = _below(base, busybox, Path(scratch))
        data = _write(Path(scratch) / "data", _LAYER, lambda file: _data_layer(folder, file))
        layers.append((data, data.digest))
        blobs: list[Blob] = [blob for blob, _ in layers]
        manifests = []
        for architecture in architectures:
            config = _document(Path(scratch), _CONFIG, _configuration(architecture, [diff for _, diff in layers]))
            manifest = {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": config.descriptor(),
                "layers": [blob.descriptor() for blob, _ in layers],
            }
            blobs.append(config)
            manifests.append((architecture, _document(Path(scratch), _MANIFEST, manifest)))
        index = {
            "schemaVersion": 2,
            "mediaType": _INDEX,
            "manifests": [
                manifest.descriptor(platform={"architecture": architecture, "os": "linux"})
                for architecture, manifest in manifests
            ],
        }
        yield PackedImage(
            tuple(blobs),
            tuple(manifest for _, manifest in manifests),
            _document(Path(scratch), _INDEX, index),
            has_shell=len(layers) > 1,
        )


@contextmanager
def read_packed(archive: Path) -> Iterator[PackedImage]:
    """Yields the image in an archive that `pack` wrote, or another OCI layout in a tar file.

    Raises:
        ConfigError: It is none, or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="kaito-push-") as scratch:
        try:
            with tarfile.open(archive) as tar:
                yield _Layout(tar, Path(scratch)).image()
        except (OSError, tarfile.TarError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"'{archive}' is not an archive of kaito adapter pack, or is damaged: {error}") from error


class _Layout:
    """An OCI layout in a tar file."""

    def __init__(self, tar: tarfile.TarFile, scratch: Path) -> None:
        self._tar, self._scratch = tar, scratch

    def image(self) -> PackedImage:
        """Returns its image, each content checked against its digest."""
        index = json.loads(self._read("index.json"))
        blobs, manifests = [], []
        for listed in index["manifests"]:
            manifest = self._blob(listed)
            content = json.loads(manifest.path.read_bytes())
            blobs += [self._blob(content["config"]), *map(self._blob, content["layers"])]
            manifests.append(manifest)
            del listed["annotations"]
        return PackedImage(
            tuple({blob.digest: blob for blob in blobs}.values()),
            tuple(manifests),
            _document(self._scratch, _INDEX, index),
            has_shell=len(blobs) > 2 * len(manifests),
        )

    def _read(self, name: str) -> bytes:
        file = self._tar.extractfile(name)
        if file is None:
            raise ValueError(f"'{name}' is no file")
        return file.read()

    def _blob(self, descriptor: Mapping[str, Any]) -> Blob:
        source = self._tar.extractfile(_place(descriptor["digest"]))
        if source is None:
            raise ValueError(f"{descriptor['digest']} is no file")
        path = self._scratch / descriptor["digest"].rpartition(":")[2]
        blob = _write(path, descriptor["mediaType"], lambda file: shutil.copyfileobj(source, file))
        if blob.digest != descriptor["digest"]:
            raise ValueError(f"{descriptor['digest']} does not have its digest")
        return blob


def _below(base: Path | None, busybox: Path | None, scratch: Path) -> tuple[list[tuple[Blob, str]], tuple[str, ...]]:
    """Returns the layers under /data, each with the digest of its plain form, and for which machines they are."""
    if base is not None and busybox is not None:
        raise ConfigError("--base and --busybox: give one of them")
    if base is not None:
        with opened_layers(base) as streams:
            found = [_copied_layer(stream, scratch / f"base-{number}") for number, stream in enumerate(streams)]
        if not found:
            raise ConfigError(f"--base: '{base}' has no layers")
        return found, ("amd64",)
    if busybox is None:
        return [], tuple(_MACHINES.values())
    start = busybox.read_bytes()[:20] if busybox.is_file() else b""
    machine = (
        _MACHINES.get(struct.unpack_from("<H", start, 18)[0]) if start[:4] == b"\x7fELF" and len(start) == 20 else None
    )
    if machine is None:
        raise ConfigError(f"--busybox: '{busybox}' is no program for {' or '.join(_MACHINES.values())}")
    shell = _write(scratch / "shell", _LAYER, lambda file: _shell_layer(busybox, file))
    return [(shell, shell.digest)], (machine,)


def _copied_layer(stream: IO[bytes], path: Path) -> tuple[Blob, str]:
    """Copies a layer as it is, and returns the digest of what is in it, unpacked."""
    plain = hashlib.sha256()
    head = stream.read(2)
    stream.seek(0)
    unpacker = zlib.decompressobj(wbits=31) if head == b"\x1f\x8b" else None

    def copy(file: IO[bytes]) -> None:
        while part := stream.read(_CHUNK):
            file.write(part)
            plain.update(unpacker.decompress(part) if unpacker is not None else part)

    blob = _write(path, _LAYER + ("+gzip" if unpacker is not None else ""), copy)
    return blob, f"sha256:{plain.hexdigest()}"


def _data_layer(folder: Path, file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_member("data", 0, directory=True))
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix in _KEPT and path.name not in _LEFT_OUT:
                with path.open("rb") as content:
                    tar.addfile(_member(f"data/{path.name}", path.stat().st_size), content)


def _shell_layer(busybox: Path, file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(_member("bin", 0, directory=True))
        member = _member("bin/busybox", busybox.stat().st_size)
        member.mode = 0o755
        with busybox.open("rb") as content:
            tar.addfile(member, content)
        for applet in _APPLETS:
            link = _member(f"bin/{applet}", 0)
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
            tar.addfile(link)


def _configuration(architecture: str, layers: Sequence[str]) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": list(layers)},
    }


def _member(name: str, size: int, *, directory: bool = False) -> tarfile.TarInfo:
    """Returns a member that is the same whoever packs it, and when."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o755 if directory else 0o644
    if directory:
        member.type = tarfile.DIRTYPE
    return member


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_member(name, len(content)), io.BytesIO(content))


def _encoded(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _document(scratch: Path, media_type: str, document: object) -> Blob:
    content = _encoded(document)
    return _write(scratch / hashlib.sha256(content).hexdigest(), media_type, lambda file: file.write(content))


def _write(path: Path, media_type: str, fill: Any) -> Blob:
    with path.open("wb") as file:
        fill(file)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256")
    return Blob(f"sha256:{found.hexdigest()}", path.stat().st_size, media_type, path)


def _place(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"
