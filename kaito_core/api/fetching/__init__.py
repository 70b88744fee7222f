"""What passes between `kaito-fetch`, which puts adapters into folders, and the fetchers that plugins bring.

A fetcher lists files and opens them at an offset. Retries, resumption, limits, progress, digests, the cache and the
folder are the program's, the same for all of them.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import httpx

__all__ = [
    "ADAPTER_FILES",
    "ARCHIVES",
    "SECRET_PREFIX",
    "SECRET_VARIABLE",
    "WEIGHT_FILES",
    "Access",
    "Content",
    "Fetcher",
    "RemoteFile",
    "digest_of",
    "is_adapter_file",
]

#: The files of an adapter, in the order in which its digest covers them.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
#: Names of the tensors: PEFT's and MLX's.
WEIGHT_FILES = (ADAPTER_FILES[1], "adapters.safetensors")
#: What an adapter may bring besides: its tokenizer and its chat template.
_OPTIONAL_FILES = (
    *("chat_template.jinja", "chat_template.json", "tokenizer_config.json", "tokenizer.json", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
)
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
#: In the environment of a container that fetches: the name of the adapter's Secret, and what the names of the variables
#: begin with that hold its keys. A key could otherwise replace PATH.
SECRET_VARIABLE, SECRET_PREFIX = "KAITO_SECRET", "KAITO_SECRET_"


def is_adapter_file(name: str) -> bool:
    """Returns whether an adapter needs a file of this name; others are not fetched."""
    return name in ADAPTER_FILES or name in WEIGHT_FILES or name in _OPTIONAL_FILES


def digest_of(folder: Path) -> str:
    """Returns "sha256:..." over an adapter's configuration and tensors.

    Raises:
        OSError: One of the two is missing or cannot be read.
    """
    weights = next((name for name in WEIGHT_FILES if (folder / name).is_file()), WEIGHT_FILES[0])
    digest = hashlib.sha256()
    for name in (ADAPTER_FILES[0], weights):
        with (folder / name).open("rb") as file:
            hashlib.file_digest(file, lambda: digest)  # goes on with the same one
    return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, from an offset on.

    Attributes:
        chunks: The bytes.
        start: Offset of the first byte: the one asked for, or 0 where the source begins anew.
        size: Size of the whole file in bytes, None where it is not known.
        version: Changes with the content, as a strong ETag does; "" where there is no such thing.
    """

    chunks: Iterator[bytes]
    start: int = 0
    size: int | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that a source has.

    Attributes:
        name: Its name, without a folder.
        open: Opens it at an offset in bytes, if its version is still the given one ("" for none), else at 0. Raises
            `TransientFetchError` where a later try may succeed, `FetchError` where none will.
        size: Its size in bytes, None where it is not known yet.
        version: As in `Content`, "" where it is not known yet.
        digest: "sha256:..." of the file, "" where the source does not know it.
        kind: "file", "archive" (a tar or zip file with the adapter in it), or "layer" (of a container image with the
            adapter in /data; the lowest first).
    """

    name: str
    open: Callable[[int, str], AbstractContextManager[Content]]
    size: int | None = None
    version: str = ""
    digest: str = ""
    kind: Literal["file", "archive", "layer"] = "file"


class Access(Protocol):
    """What a fetcher may use: the adapter's credentials, and the network within the rules of the settings."""

    @property
    def client(self) -> "httpx.Client":
        """An HTTP client that resolves and checks each host, redirects included, and honours proxies and the CA."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The process's environment, for what a source's own tools read there."""

    def secret(self, key: str) -> str:
        """Returns a key of the adapter's Secret, or without one the variable of that name; "" where there is none."""

    def credentials(self, *keys: str) -> str:
        """Returns where the credentials came from, for messages: "the keys A and B of Secret 'x'"."""

    def check_url(self, url: str) -> None:
        """Raises FetchError unless the rules allow a URL, for libraries that bring their own client."""


@runtime_checkable
class Fetcher(Protocol):
    """The half of an adapter source that runs in the pod."""

    @property
    def name(self) -> str:
        """Name of the source, the same as in the operator; unique across plugins."""

    @property
    def schemes(self) -> tuple[str, ...]:
        """The URI schemes that it reads, each unique across plugins."""

    def files(self, uri: str, access: Access) -> Iterable[RemoteFile]:
        """Returns the files at a URI. Those that an adapter does not need are passed over.

        Raises:
            FetchError: There is nothing, or the credentials are wrong; the message says which.
        """
