"""Fetches adapters and weights into folders; the init containers of a pod run it. `formats` reads the files.

Of an adapter only its two files are written, under their own names, so that an archive cannot choose a path. A folder
appears as a whole or not at all.
"""

import hashlib
import ipaddress
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

import httpx

from kaito_core.api.archive import ArchiveError, unpack
from kaito_runtime.errors import ServeError

__all__ = ["ADAPTER_FILES", "FetchError", "digest_of", "fetch_adapter", "fetch_model"]

#: The files of an adapter, in the order in which its digest covers them.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_TIMEOUT_SECONDS = 60.0
_RETRIES = 3  # of connecting
#: In bytes. No adapter is nearly as large; without a limit, one URL could fill the disk of a node.
_LARGEST_DOWNLOAD = 16 << 30
#: Azure's platform endpoint: a public address that serves each virtual machine its own secrets.
_AZURE_PLATFORM = ipaddress.ip_address("168.63.129.16")
_MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_OTHER_FORMATS = ("original/*", "consolidated*", "onnx/*", "*.bin", "*.pt", "*.pth")


class FetchError(ServeError):
    """A source cannot be fetched; the message names it and the cause."""


def fetch_adapter(sources: Sequence[str], to: Path, digest: str | None = None) -> None:
    """Puts an adapter's files into the folder `to`, which is replaced as a whole.

    Args:
        sources: One source: https://... (an archive, or a folder's URL), hf://org/name[@revision][/folder], or a local
            folder. Or several https URLs, one per file.
        digest: "sha256:..." that the files must have.

    Raises:
        FetchError: Nothing was changed.
    """
    for source in sources:
        _check_url(source)
    with _new_folder(to) as folder:
        if len(sources) > 1:
            _from_urls(sources, folder)
        else:
            _from_one(sources[0], folder)
        if missing := [name for name in ADAPTER_FILES if not (folder / name).is_file()]:
            raise FetchError(f"{_shown(sources[0])} has no {' and no '.join(missing)}")
        if digest is not None and (found := digest_of(folder)) != digest:
            raise FetchError(f"{_shown(sources[0])} has the digest {found}, expected {digest}")


def fetch_model(repository: str, revision: str, to: Path) -> None:
    """Downloads a model's safetensors, configuration and tokenizer; what is there already is kept.

    Raises:
        FetchError: The hub refuses, or the repository has no safetensors.
    """
    _snapshot(repository, revision, to, _MODEL_FILES, _OTHER_FORMATS)
    if not (to / "config.json").is_file() or not any(to.glob("*.safetensors")):
        raise FetchError(f"{repository}@{revision} has no config.json or no *.safetensors")


def digest_of(folder: Path) -> str:
    """Returns "sha256:..." over an adapter's files."""
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


@contextmanager
def _new_folder(to: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `to` if nothing raises."""
    to = to.absolute()
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as scratch:
            folder, old = Path(scratch) / "new", Path(scratch) / "old"
            folder.mkdir(mode=0o755)  # the server may be another user
            yield folder
            if to.exists():
                to.rename(old)
            folder.rename(to)
    except OSError as error:
        raise FetchError(f"{to}: {error.strerror or error}") from error


def _from_one(source: str, folder: Path) -> None:
    scheme, _, rest = source.partition("://")
    if not rest:
        _from_folder(Path(source), folder)
    elif scheme == "hf":
        _from_hub(rest, folder)
    elif scheme not in ("http", "https"):
        raise FetchError(f"{source}: unknown scheme '{scheme}', known: https, http, hf, or a local folder")
    elif urlsplit(source).path.endswith(_ARCHIVES):
        with tempfile.NamedTemporaryFile(dir=folder.parent) as archive:
            _download(source, archive)
            archive.flush()
            _from_archive(Path(archive.name), _shown(source), folder)
    else:
        parts = urlsplit(source)
        path = parts.path.rstrip("/")
        _from_urls([parts._replace(path=f"{path}/{name}").geturl() for name in ADAPTER_FILES], folder)


def _from_folder(source: Path, folder: Path) -> None:
    if not source.is_dir():
        raise FetchError(f"{source} is not a folder")
    for name in ADAPTER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def _from_urls(urls: Iterable[str], folder: Path) -> None:
    for url in urls:
        name = PurePosixPath(urlsplit(url).path).name
        if name not in ADAPTER_FILES:
            raise FetchError(f"{_shown(url)}: '{name}' is not a file of an adapter, known: {', '.join(ADAPTER_FILES)}")
        with (folder / name).open("wb") as file:
            _download(url, file)


def _download(url: str, file: IO[bytes]) -> None:
    transport = httpx.HTTPTransport(retries=_RETRIES)
    # The operator has checked the user's URL, but not where its server redirects.
    hooks = {"request": [_refuse_internal(urlsplit(url).hostname or "")]}
    try:
        with (
            httpx.Client(
                transport=transport, timeout=_TIMEOUT_SECONDS, follow_redirects=True, event_hooks=hooks
            ) as client,
            client.stream("GET", url) as response,
        ):
            if response.is_error:
                raise FetchError(f"{_shown(url)} responded with {response.status_code} {response.reason_phrase}")
            _copy_bounded(response, file, _shown(url))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(f"{_shown(url)}: {error or type(error).__name__}") from error


def _copy_bounded(response: httpx.Response, file: IO[bytes], shown: str) -> None:
    announced = response.headers.get("Content-Length", "")
    received = 0
    too_large = FetchError(f"{shown} is larger than {_LARGEST_DOWNLOAD:,} bytes, the limit of a download")
    if announced.isdecimal() and int(announced) > _LARGEST_DOWNLOAD:
        raise too_large
    for chunk in response.iter_bytes():
        received += len(chunk)
        if received > _LARGEST_DOWNLOAD:
            raise too_large
        file.write(chunk)


def _refuse_internal(trusted: str) -> Callable[[httpx.Request], None]:
    """Returns a check that refuses hosts with internal addresses, except the host `trusted`."""

    def check(request: httpx.Request) -> None:
        host = request.url.host
        if host.lower() == trusted.lower():
            return
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        try:
            found = {entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        except (OSError, UnicodeError) as error:
            raise FetchError(f"{trusted} redirects to '{host}', which has no address: {error}") from error
        if wrong := sorted(str(address) for address in found if _is_internal(str(address))):
            raise FetchError(
                f"{trusted} redirects to '{host}', an internal address ({wrong[0]}); if that is intended, make the "
                "final URL the source"
            )

    return check


def _is_internal(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return not address.is_global or address.is_multicast or address == _AZURE_PLATFORM


def _from_archive(archive: Path, shown: str, folder: Path) -> None:
    """Moves the adapter's files out of the one folder of an archive that has them."""
    unpacked = folder.with_name("unpacked")
    try:
        unpack(archive, unpacked, wanted=lambda path: path.name in ADAPTER_FILES)
    except ArchiveError as error:
        raise FetchError(f"{shown} {error}") from error
    parents = sorted(path.parent for path in unpacked.rglob(ADAPTER_FILES[0]) if path.is_file())
    if len(parents) > 1:
        names = ", ".join(str(parent.relative_to(unpacked)) for parent in parents)
        raise FetchError(f"{shown} has several adapters: {names}")
    for path in [parent / name for parent in parents for name in ADAPTER_FILES]:
        if path.is_file():
            path.resolve().rename(folder / path.name)  # a link's target, which is in `unpacked` too


def _from_hub(location: str, folder: Path) -> None:
    parts = location.split("/", 2)
    if len(parts) < 2 or not all(parts[:2]):
        raise FetchError(f"hf://{location}: must be hf://org/name[@revision][/folder]")
    name, _, revision = parts[1].partition("@")
    inside = PurePosixPath(parts[2]) if len(parts) > 2 and parts[2] else PurePosixPath()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wanted = [str(inside / file) for file in ADAPTER_FILES]
        _snapshot(f"{parts[0]}/{name}", revision or "main", Path(scratch), wanted, ())
        _from_folder(Path(scratch) / inside if (Path(scratch) / inside).is_dir() else Path(scratch), folder)


def _snapshot(repository: str, revision: str, to: Path, wanted: Sequence[str], ignored: Sequence[str]) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            repository,
            revision=revision,
            local_dir=to,
            allow_patterns=list(wanted),
            ignore_patterns=list(ignored),
            token=os.environ.get("HF_TOKEN") or None,
        )
    except Exception as error:  # the hub client raises its own, httpx's, OSError and ValueError
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise FetchError(f"{repository}@{revision} cannot be fetched: {lines[0]}") from error


def _check_url(source: str) -> None:
    try:
        urlsplit(source).port  # noqa: B018 - parsed on access
    except ValueError as error:
        raise FetchError(f"a source is not a URL: {error}") from error


def _shown(source: str) -> str:
    """Returns a source without the parts that may be secret: user, password, query."""
    parts = urlsplit(source)
    if parts.scheme not in ("http", "https"):
        return source
    host = parts.hostname or ""
    return parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host, query="", fragment="").geturl()
