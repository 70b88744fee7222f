"""From fetched files to an adapter's folder: archives and layers are unpacked, and what an adapter needs is kept."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from kaito_core.api.archive import ArchiveError, Limits, unpack, unpack_layers
from kaito_core.api.fetching import ADAPTER_FILES, WEIGHT_FILES, RemoteFile, is_adapter_file
from kaito_core.errors import FetchError
from kaito_core.fetch.bounds import check_config, most_bytes, tensor_bytes

__all__ = ["assemble"]

_DATA = "data"  # the folder of a container image that holds an adapter


def assemble(fetched: Sequence[tuple[RemoteFile, Path]], folder: Path, most: int, what: str) -> Path:
    """Returns the new folder with an adapter's files.

    Args:
        fetched: What was fetched, and where it is.
        folder: Where new folders are made.
        most: Bytes that may be unpacked.
        what: The source in messages.

    Raises:
        FetchError: The files are not an adapter's, or an archive is not safe.
        OSError: They cannot be written.
    """
    new = folder / "new"
    new.mkdir()
    packed = [(file, path) for file, path in fetched if file.kind != "file"]
    for file, path in fetched:
        if file.kind == "file":
            path.rename(new / file.name)
    if packed:
        _unpack(packed, folder / "unpacked", most, what)
        _move_adapter(folder / "unpacked", new, what)
    _check(new, most, what)
    for path in new.iterdir():
        path.chmod(0o644)
    return new


def _unpack(packed: Sequence[tuple[RemoteFile, Path]], to: Path, most: int, what: str) -> None:
    limits = Limits(bytes=most)
    try:
        if packed[0][0].kind == "layer":
            layers = (path.open("rb") for _, path in packed)
            unpack_layers(layers, to, wanted=lambda path: path.parts[0] == _DATA, limits=limits)
        else:
            for number, (_, path) in enumerate(packed):
                to.mkdir(exist_ok=True)
                unpack(path, to / str(number), wanted=lambda path: is_adapter_file(path.name), limits=limits)
    except ArchiveError as error:
        raise FetchError(f"{what} {error}") from error


def _move_adapter(unpacked: Path, new: Path, what: str) -> None:
    """Moves the files of the one folder that has a configuration."""
    parents = sorted(path.parent for path in unpacked.rglob(ADAPTER_FILES[0]) if path.is_file())
    if len(parents) > 1:
        names = ", ".join(str(PurePosixPath(*parent.relative_to(unpacked).parts[1:])) for parent in parents)
        raise FetchError(f"{what} has several adapters: {names}")
    for path in [path for parent in parents for path in parent.iterdir()]:
        if is_adapter_file(path.name) and path.is_file():
            path.resolve().rename(new / path.name)  # a link's target, which was unpacked too


def _check(new: Path, most: int, what: str) -> None:
    has_weights = any((new / name).is_file() for name in WEIGHT_FILES)
    missing = [ADAPTER_FILES[0]] * (not (new / ADAPTER_FILES[0]).is_file()) + [ADAPTER_FILES[1]] * (not has_weights)
    if missing:
        hint = "; pickles (adapter_model.bin) are not fetched" if missing == [ADAPTER_FILES[1]] else ""
        raise FetchError(f"{what} has no {' and no '.join(missing)}{hint}")
    for path in sorted(new.iterdir()):
        size = path.stat().st_size
        if size > most_bytes(path.name, most):
            raise FetchError(f"{what}: {path.name} is larger than {most_bytes(path.name, most):,} bytes")
        try:
            if path.name == ADAPTER_FILES[0]:
                check_config(path)
            elif path.name.endswith(".safetensors") and tensor_bytes(path) != size:
                raise FetchError(f"has {size:,} bytes, which is not what its own header says; save the adapter again")
        except FetchError as error:
            raise FetchError(f"{what}: {path.name} {error}") from error
