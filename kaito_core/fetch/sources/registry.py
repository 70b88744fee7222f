"""Images and artifacts in registries: manifests, and blobs as remote files, by the OCI distribution protocol.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md,
https://distribution.github.io/distribution/spec/auth/token/
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from kaito_core.api.fetching import Access, Content, RemoteFile
from kaito_core.errors import FetchError, TransientFetchError
from kaito_core.fetch.network.registry_login import DOCKER_HUB, Challenge, Login, basic, stored_login
from kaito_core.fetch.network.web_file import get, web_file

__all__ = ["ImageReference", "Repository", "login_for"]

_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+|localhost|\[[0-9a-fA-F:]+\](?::\d+)?"
_REFERENCE = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<name>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
_MANIFESTS = (
    *("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"),
    *(
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ),
)
_LARGEST_MANIFEST = 16 << 20
_DEEPEST = 8  # indexes in one another
_KEYS = (".dockerconfigjson", "username", "password")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """The parts of an image reference.

    Attributes:
        host: The registry's, with its port.
        name: Name of the repository.
        version: The digest where there is one, else the tag.
    """

    host: str
    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> "ImageReference":
        """Returns the parts of a reference, without a scheme.

        Raises:
            FetchError: It is none.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise FetchError(f"'{text[:512]}' must be a reference such as registry.example/adapters/style:1")
        host, name = match["host"] or "docker.io", match["name"]
        if host == "docker.io":
            host, name = DOCKER_HUB, name if "/" in name else f"library/{name}"
        return cls(host, name, match["digest"] or match["tag"] or "latest")


class Repository:
    """One repository of a registry, with the access that one adapter has to it."""

    def __init__(self, reference: ImageReference, access: Access) -> None:
        self._reference, self._access = reference, access
        self._login = login_for(reference.host, access)
        self._base = ""
        self._authorization: dict[str, str] = {}

    def files(self) -> list[RemoteFile]:
        """Returns the layers of an image, or the files of an artifact.

        Raises:
            FetchError, TransientFetchError: There is no such image, or it cannot be read.
        """
        self._connect()
        manifest = self._manifest(self._reference.version)
        for _ in range(_DEEPEST):
            if "manifests" not in manifest:
                break
            manifest = self._manifest(_chosen(manifest["manifests"], self._reference))
        layers = manifest.get("layers")
        if not isinstance(layers, list) or not layers:
            raise FetchError(f"{self._what}: its manifest lists no layers")
        return [file for layer in layers if (file := self._file(_descriptor(layer, self._what), layer)) is not None]

    @property
    def _what(self) -> str:
        return f"{self._reference.host}/{self._reference.name}:{self._reference.version}"

    def _connect(self) -> None:
        """Finds out how the registry is asked: by https, or by http where that is allowed, and with which token."""
        try:
            challenge = self._challenge("https")
        except TransientFetchError:
            if not self._may_be_plain():
                raise
            challenge = self._challenge("http")
        self._authorization = self._authorize(challenge)

    def _may_be_plain(self) -> bool:
        try:
            self._access.check_url(f"http://{self._reference.host}/v2/")
        except FetchError:
            return False
        return True

    def _challenge(self, scheme: str) -> Challenge:
        self._base = f"{scheme}://{self._reference.host}"
        url = f"{self._base}/v2/"
        try:
            with self._access.client.stream("GET", url) as response:
                asked = response.headers.get("www-authenticate", "") if response.status_code == 401 else ""
                return Challenge.parse(asked)
        except httpx.TransportError as error:
            raise TransientFetchError(f"the registry {self._reference.host} cannot be reached: {error}") from error
        except httpx.HTTPError as error:
            raise FetchError(f"the registry {self._reference.host} cannot be asked: {error}") from error

    def _authorize(self, challenge: Challenge) -> dict[str, str]:
        own = {} if self._login is None else {"Authorization": basic(self._login)}
        if challenge.scheme != "bearer":
            return own if challenge.scheme else {}
        url = challenge.token_url(self._reference.name, "pull")
        text, _ = get(self._access.client, url, most=1 << 20, headers=own, refusal=self._refusal)
        answer = _document(text, f"the token of {self._reference.host}")
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str):
            raise FetchError(f"the registry {self._reference.host} gives no token; {self._credentials}")
        return {"Authorization": f"Bearer {token}"}

    @property
    def _credentials(self) -> str:
        return f"asked with {self._access.credentials(*_KEYS)}"

    def _refusal(self, status: int) -> str:
        if status in (401, 403):
            return f"responded with {status}: no right to pull {self._reference.name}; {self._credentials}"
        if status == 404:
            return f"responded with 404: there is no {self._what}, or it may not be seen; {self._credentials}"
        return ""

    def _manifest(self, version: str) -> dict[str, Any]:
        url = f"{self._base}/v2/{self._reference.name}/manifests/{version}"
        headers = {**self._authorization, "Accept": ", ".join(_MANIFESTS)}
        text, _ = get(self._access.client, url, most=_LARGEST_MANIFEST, headers=headers, refusal=self._refusal)
        if version.startswith("sha256:") and version != (found := f"sha256:{hashlib.sha256(text).hexdigest()}"):
            raise FetchError(f"{self._what}: the manifest {version} has the digest {found}")
        return _document(text, f"{self._what}: the manifest {version}")

    def _file(self, descriptor: tuple[str, int], layer: Mapping[str, Any]) -> RemoteFile | None:
        digest, size = descriptor
        media, notes = str(layer.get("mediaType", "")), layer.get("annotations")
        title = notes.get("org.opencontainers.image.title") if isinstance(notes, dict) else None
        if isinstance(title, str):
            packed = "tar" in media or notes.get("io.deis.oras.content.unpack") == "true"  # type: ignore[union-attr]
            return RemoteFile(title, self._opener(digest), size, digest=digest, kind="archive" if packed else "file")
        if "image" not in media or ("layer" not in media and "rootfs" not in media):
            return None
        return RemoteFile(digest, self._opener(digest), size, digest=digest, kind="layer")

    def _opener(self, digest: str) -> Any:
        @contextmanager
        def opened(offset: int, version: str) -> Iterator[Content]:
            if offset:  # a download that broke off may have been longer than a token lives
                self._connect()
            url = f"{self._base}/v2/{self._reference.name}/blobs/{digest}"
            file = web_file(self._access.client, url, digest, headers=self._authorization, refusal=self._refusal)
            with file.open(offset, version) as content:
                yield content

        return opened


def login_for(host: str, access: Access) -> Login | None:
    """Returns user and password for a registry out of the adapter's Secret, None where it has none.

    Raises:
        FetchError: The Secret's .dockerconfigjson cannot be read.
    """
    text = access.secret(_KEYS[0])
    if not text and access.secret("username") and access.secret("password"):
        return access.secret("username"), access.secret("password")
    if not text:
        return None
    try:
        return stored_login(text, host)
    except ValueError as error:
        raise FetchError(f"{access.credentials(_KEYS[0])} cannot be read: {error}") from error


def _document(text: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FetchError(f"{what} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise FetchError(f"{what} must be an object, got {type(found).__name__}")
    return found


def _descriptor(entry: object, what: str) -> tuple[str, int]:
    if isinstance(entry, dict):
        digest, size = entry.get("digest"), entry.get("size")
        if isinstance(digest, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", digest) and type(size) is int and size >= 0:
            return digest, size
    raise FetchError(f"{what}: its manifest lists something that has no sha256 digest and size")


def _chosen(manifests: object, reference: ImageReference) -> str:
    """Returns the digest of one image of an index: any platform will do, since /data has tensors and no programs."""
    what = f"{reference.host}/{reference.name}:{reference.version}"
    listed = manifests if isinstance(manifests, list) else []
    for entry in listed:
        platform = entry.get("platform") if isinstance(entry, dict) else None
        # Attestations are listed beside their image, with the platform "unknown".
        if not isinstance(platform, dict) or platform.get("os") != "unknown":
            return _descriptor(entry, what)[0]
    raise FetchError(f"{what}: its index lists no image")
