"""The folder /data of a container image on disk: an OCI layout or a `docker save` archive, as a folder or tar file.

Nothing is pulled and no image is run: an adapter image is a parcel around /data.
Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md and .../layer.md
"""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from kaito_core.errors import ConfigError

__all__ = ["unpack_data"]

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_DATA = "data"


class _Archive(Protocol):
    def read(self, name: str) -> bytes | None: ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes | None:
        path = (self.root / name).resolve()
        inside = path.is_relative_to(self.root.resolve())
        return path.read_bytes() if inside and path.is_file() else None


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self.tar = tar
        self.members = {member.name.removeprefix("./"): member for member in tar.getmembers()}

    def read(self, name: str) -> bytes | None:
        member = self.members.get(name)
        stream = self.tar.extractfile(member) if member is not None else None
        return stream.read() if stream is not None else None


@contextmanager
def _opened(path: Path) -> Iterator[_Archive]:
    if path.is_dir():
        yield _Folder(path)
        return
    try:
        with tarfile.open(path) as tar:
            yield _Tar(tar)
    except FileNotFoundError as error:
        raise ConfigError(f"--image: '{path}' does not exist") from error
    except tarfile.TarError as error:
        raise ConfigError(f"--image: '{path}' is neither an OCI layout nor a `docker save` archive: {error}") from error


def _json(archive: _Archive, name: str) -> Any:
    content = archive.read(name)
    return None if content is None else json.loads(content)


def _blob(archive: _Archive, descriptor: Mapping[str, Any]) -> bytes:
    algorithm, _, digest = str(descriptor.get("digest", "")).partition(":")
    content = archive.read(f"blobs/{algorithm}/{digest}")
    if content is None:
        raise ConfigError(f"--image: the blob {algorithm}:{digest} is missing from the image; save it again")
    if algorithm != "sha256" or hashlib.sha256(content).hexdigest() != digest:
        raise ConfigError(f"--image: the blob {algorithm}:{digest} does not have its digest; save the image again")
    return content


def _matches(reference: str, descriptor: Mapping[str, Any]) -> bool:
    names = descriptor.get("annotations", {})
    tag = reference.rpartition(":")[2]
    return bool(
        reference == names.get("io.containerd.image.name")
        or names.get("org.opencontainers.image.ref.name") in (reference, tag)
        or reference.endswith(str(descriptor.get("digest")))
    )


def _oci_layers(archive: _Archive, index: Mapping[str, Any], reference: str) -> list[bytes]:
    # Attestations are listed beside the image they attest; they have no files.
    listed = [m for m in index.get("manifests", []) if m.get("platform", {}).get("os") != "unknown"]
    chosen = [m for m in listed if _matches(reference, m)] or listed
    if not chosen:
        raise ConfigError(f"--image: the image of '{reference}' lists no manifest; save it again")
    # Of several platforms any will do: /data holds tensors, not programs.
    manifest = json.loads(_blob(archive, chosen[0]))
    if "manifests" in manifest:
        return _oci_layers(archive, manifest, reference)
    return [_blob(archive, layer) for layer in manifest.get("layers", [])]


def _docker_layers(archive: _Archive, manifest: list[Mapping[str, Any]], reference: str) -> list[bytes]:
    chosen = [image for image in manifest if reference in (image.get("RepoTags") or [])] or manifest
    layers = []
    for name in chosen[0].get("Layers", []):
        content = archive.read(name)
        if content is None:
            raise ConfigError(f"--image: the layer '{name}' is missing from the archive; save it again")
        layers.append(content)
    return layers


def _apply(layer: bytes, root: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for member in tar:
            path = PurePosixPath(member.name.removeprefix("./").lstrip("/"))
            if not path.parts or path.parts[0] != _DATA:
                continue
            target = root.joinpath(*path.parts)
            if path.name == _OPAQUE:
                shutil.rmtree(target.parent, ignore_errors=True)
            elif path.name.startswith(_WHITEOUT):
                gone = target.with_name(path.name.removeprefix(_WHITEOUT))
                shutil.rmtree(gone, ignore_errors=True) if gone.is_dir() else gone.unlink(missing_ok=True)
            else:
                tar.extract(member.replace(name=str(path)), root, filter="data")


def unpack_data(reference: str, path: Path, root: Path) -> Path:
    """Unpacks the folder /data of an image and returns where it is.

    Args:
        reference: The image's name, which chooses among several in one archive.
        path: An OCI layout or `docker save` archive, as a folder or tar file.
        root: Folder to unpack into.

    Raises:
        ConfigError: The file is no image, is damaged, or has no /data.
    """
    with _opened(path) as archive:
        index, manifest = _json(archive, "index.json"), _json(archive, "manifest.json")
        if index is not None:
            layers = _oci_layers(archive, index, reference)
        elif manifest:
            layers = _docker_layers(archive, manifest, reference)
        else:
            raise ConfigError(
                f"--image: '{path}' is neither an OCI layout (index.json) nor a `docker save` archive (manifest.json)"
            )
        root.mkdir(parents=True, exist_ok=True)
        for layer in layers:
            try:
                _apply(layer, root)
            except tarfile.FilterError as error:
                raise ConfigError(f"--image: '{path}' holds a file that points out of the image: {error}") from error
            except tarfile.ReadError as error:
                raise ConfigError(
                    f"--image: a layer of '{path}' is compressed in a way that this Python cannot read ({error}); save "
                    "the image with gzip"
                ) from error
    if not (root / _DATA).is_dir():
        raise ConfigError(f"--image: '{reference}' in '{path}' has no folder /data, where an adapter's files belong")
    return root / _DATA
