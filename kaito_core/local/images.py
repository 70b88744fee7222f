"""Unpacks the folder /data of a container image on disk: an OCI layout or a `docker save` archive, as folder or file.

Images are neither pulled nor run. `kaito_core.api.archive` unpacks the layers, and refuses those that are not safe.
Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

import hashlib
import posixpath
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Annotated, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from kaito_core.api.archive import ArchiveError, Limits, unpack_layers
from kaito_core.api.archive.members import Member, members_of, reading
from kaito_core.api.messages import field_path
from kaito_core.errors import ConfigError

__all__ = ["opened_layers", "unpack_data"]

_T = TypeVar("_T")

_DATA = "data"
_LIMITS = Limits(members=1_000_000)  # all files of the image count, though only those in /data are written
_LONGEST_DOCUMENT = 16 << 20  # bytes
_DEEPEST = 8  # of indexes in indexes, and of links, with which older versions of docker save equal layers once


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Platform(_Record):
    os: str | None = None


class _Descriptor(_Record):
    digest: Annotated[str, Field(pattern=r"^[a-z0-9+._-]+:[A-Za-z0-9=_-]+$")]
    annotations: dict[str, str] | None = None
    platform: _Platform | None = None

    def is_named(self, reference: str) -> bool:
        names = self.annotations or {}
        return (
            reference == names.get("io.containerd.image.name")
            or names.get("org.opencontainers.image.ref.name") in (reference, reference.rpartition(":")[2])
            or reference.endswith(self.digest)
        )


class _Manifest(_Record):
    """The manifest of an image, with its layers, or an index, with the manifests of several images."""

    manifests: list[_Descriptor] | None = None
    layers: list[_Descriptor] | None = None


class _Saved(_Record):
    """An image in the manifest.json of `docker save`."""

    names: list[str] | None = Field(default=None, alias="RepoTags")
    layers: list[str] | None = Field(default=None, alias="Layers")


class _Image(Protocol):
    def open(self, name: str) -> IO[bytes] | None: ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, name: str) -> IO[bytes] | None:
        path = (self.root / name).resolve()
        inside = path.is_relative_to(self.root.resolve())
        return path.open("rb") if inside and path.is_file() else None


class _Tar:
    def __init__(self, members: Iterator[Member]) -> None:
        self.members = {member.name.removeprefix("./"): member for member in members}

    def open(self, name: str) -> IO[bytes] | None:
        for _ in range(_DEEPEST):
            member = self.members.get(name)
            if member is None:
                return None
            if member.kind == "file":
                return member.open()
            beside = posixpath.dirname(name) if member.kind == "link" else ""
            name = posixpath.normpath(posixpath.join(beside, member.target))
        return None


@contextmanager
def _opened(path: Path) -> Iterator[_Image]:
    if path.is_dir():
        yield _Folder(path)
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            image = _Tar(stack.enter_context(members_of(file, _LIMITS, "image")))
        except FileNotFoundError as error:
            raise ConfigError(f"--image: '{path}' does not exist") from error
        except ArchiveError as error:
            raise ConfigError(
                f"--image: '{path}' is not an OCI layout or a `docker save` archive: it {error}"
            ) from error
        yield image


def _open(image: _Image, name: str) -> IO[bytes] | None:
    with reading():
        return image.open(name)


def _parsed(form: TypeAdapter[_T], name: str, stream: IO[bytes]) -> _T:
    with stream, reading():
        text = stream.read(_LONGEST_DOCUMENT + 1)
    if len(text) > _LONGEST_DOCUMENT:
        raise ConfigError(f"--image: {name} is larger than {_LONGEST_DOCUMENT:,} bytes; save the image again")
    try:
        return form.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = f" at {field_path(first['loc'])}" if first["loc"] else ""
        raise ConfigError(f"--image: {name} is damaged{at}: {first['msg']}; save the image again") from error


def _blob(image: _Image, descriptor: _Descriptor) -> IO[bytes]:
    algorithm, _, digest = descriptor.digest.partition(":")
    stream = _open(image, f"blobs/{algorithm}/{digest}")
    if stream is None:
        raise ConfigError(f"--image: the blob {descriptor.digest} is missing from the image; save it again")
    with reading():
        found = hashlib.file_digest(stream, "sha256")  # type: ignore[arg-type]  # it is a file or a member of an archive
        stream.seek(0)
    if algorithm != "sha256" or found.hexdigest() != digest:
        raise ConfigError(f"--image: the blob {descriptor.digest} does not have its digest; save the image again")
    return stream


def _oci_layers(image: _Image, manifest: _Manifest, reference: str) -> Iterator[IO[bytes]]:
    for _ in range(_DEEPEST):
        if manifest.manifests is None:
            for layer in manifest.layers or ():
                yield _blob(image, layer)
            return
        # Attestations are listed beside their image, with the platform "unknown". They have no files.
        listed = [m for m in manifest.manifests if m.platform is None or m.platform.os != "unknown"]
        chosen = [m for m in listed if m.is_named(reference)] or listed
        if not chosen:
            raise ConfigError(f"--image: the index of '{reference}' is empty; save the image again")
        # Any platform will do: /data has tensors, not programs.
        digest = chosen[0].digest
        manifest = _parsed(TypeAdapter(_Manifest), f"the manifest {digest}", _blob(image, chosen[0]))
    raise ConfigError(f"--image: '{reference}' has more than {_DEEPEST} indexes in one another; save the image again")


def _docker_layers(image: _Image, saved: Sequence[_Saved], reference: str) -> Iterator[IO[bytes]]:
    chosen = [one for one in saved if reference in (one.names or ())] or saved
    for name in chosen[0].layers or ():
        stream = _open(image, name)
        if stream is None:
            raise ConfigError(f"--image: the layer '{name}' is missing from the archive; save it again")
        yield stream


def _layers(image: _Image, path: Path, reference: str) -> Iterator[IO[bytes]]:
    if (stream := _open(image, "index.json")) is not None:
        return _oci_layers(image, _parsed(TypeAdapter(_Manifest), "index.json", stream), reference)
    if (stream := _open(image, "manifest.json")) is not None and (
        saved := _parsed(TypeAdapter(list[_Saved]), "manifest.json", stream)
    ):
        return _docker_layers(image, saved, reference)
    raise ConfigError(
        f"--image: '{path}' is not an OCI layout (no index.json) or a `docker save` archive (no manifest.json)"
    )


@contextmanager
def opened_layers(path: Path) -> Iterator[Iterator[IO[bytes]]]:
    """Yields the layers of the first image in a file or folder, the lowest first.

    Raises:
        ConfigError: It is not an image, or is damaged.
    """
    try:
        with _opened(path) as image:
            yield _layers(image, path, "")
    except ArchiveError as error:
        raise ConfigError(f"--image: '{path}' {error}") from error


def unpack_data(reference: str, path: Path, root: Path) -> Path:
    """Unpacks the folder /data of an image, and returns the path of the unpacked folder.

    Args:
        reference: Name of the image, which selects it if the archive has several.
        path: An OCI layout or `docker save` archive, as a folder or tar file.
        root: Folder to unpack into. It is created; if it exists, it must be empty.

    Raises:
        ConfigError: The file is not an image, is damaged, has no /data, or a layer is not safe. `root` is not created.
    """
    try:
        with _opened(path) as image:
            unpack_layers(
                _layers(image, path, reference), root, wanted=lambda name: name.parts[0] == _DATA, limits=_LIMITS
            )
    except ArchiveError as error:
        raise ConfigError(f"--image: '{path}' {error}") from error
    except OSError as error:
        raise ConfigError(f"--image: '{path}' cannot be unpacked: {error}") from error
    if not (root / _DATA).is_dir():
        shutil.rmtree(root)
        raise ConfigError(f"--image: '{reference}' in '{path}' has no folder /data, where an adapter's files must be")
    return root / _DATA
