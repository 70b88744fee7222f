"""Pushes images to a registry by the OCI distribution protocol.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md,
https://distribution.github.io/distribution/spec/auth/token/
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from kaito_core.builtin.image import is_image_reference
from kaito_core.errors import ConfigError
from kaito_core.fetch.network.registry_login import Challenge, Login, basic, stored_login
from kaito_core.fetch.sources.registry import ImageReference
from kaito_core.local.pack import Blob, PackedImage

__all__ = ["Registry", "docker_login", "push", "split_reference"]

_CHUNK = 1 << 20


def split_reference(reference: str) -> tuple[str, str, str]:
    """Returns (host, repository, tag) of an image reference.

    Raises:
        ConfigError: It is not one, or it has a digest, which a push decides.
    """
    if not is_image_reference(reference) or "@" in reference:
        raise ConfigError(f"'{reference}' must be an image reference with a tag, such as registry.example/style:1")
    found = ImageReference.parse(reference)
    return found.host, found.name, found.version


def docker_login(host: str, config: Path | None = None) -> Login | None:
    """Returns user and password of `docker login` for a registry, None where there are none.

    Args:
        host: Of the registry.
        config: Docker's config.json; None: $DOCKER_CONFIG or ~/.docker.
    """
    path = config or Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
    try:
        return stored_login(path.read_text(), host)
    except (OSError, ValueError):
        return None  # the registry may ask for none, and says so otherwise


@dataclass
class Registry:
    """One repository of a registry.

    Attributes:
        client: Sends the requests.
        base: URL of the registry.
        repository: Name of the repository.
        login: User and password, None for none.
    """

    client: httpx.Client
    base: str
    repository: str
    login: Login | None = None
    _authorization: str = ""

    def has(self, blob: Blob) -> bool:
        """Returns whether a blob is there already."""
        return self._send("HEAD", f"/blobs/{blob.digest}", allowed=(200, 404)).status_code == 200

    def upload(self, blob: Blob) -> None:
        """Sends a blob.

        Raises:
            ConfigError: The registry refuses it, or does not answer.
        """
        started = self._send("POST", "/blobs/uploads/", allowed=(202,))
        place = httpx.URL(started.headers["Location"])
        url = place if place.is_absolute_url else httpx.URL(self.base).join(place)
        url = url.copy_merge_params({"digest": blob.digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        self._send("PUT", str(url), allowed=(201, 204), content=lambda: _chunks(blob.path), headers=headers)

    def put_manifest(self, blob: Blob, reference: str) -> None:
        """Sends a manifest or an index, under its digest or a tag.

        Raises:
            ConfigError: The registry refuses it, or does not answer.
        """
        content = blob.path.read_bytes()
        headers = {"Content-Type": blob.media_type}
        self._send("PUT", f"/manifests/{reference}", allowed=(201,), content=lambda: content, headers=headers)

    def _send(
        self,
        method: str,
        path: str,
        *,
        allowed: tuple[int, ...],
        content: Callable[[], bytes | Iterator[bytes]] = lambda: b"",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        url = path if path.startswith("http") else f"{self.base}/v2/{self.repository}{path}"
        # What the registry's own address is asked for may carry its credentials, and nothing else.
        own = httpx.URL(url).host == httpx.URL(self.base).host
        try:
            for attempt in range(2):
                sent = dict(headers or {})
                if self._authorization and own:
                    sent["Authorization"] = self._authorization
                answer = self.client.request(method, url, content=content(), headers=sent)
                if answer.status_code != 401 or attempt or not own:
                    break
                self._authorization = self._authorize(Challenge.parse(answer.headers.get("WWW-Authenticate", "")))
        except httpx.HTTPError as error:
            raise ConfigError(f"registry {self.base} cannot be reached: {error}") from error
        if answer.status_code in (401, 403):
            raise ConfigError(
                f"registry {self.base} refuses access to '{self.repository}' (HTTP {answer.status_code}); "
                f"run docker login {httpx.URL(self.base).host} with a user who may push to it"
            )
        if answer.status_code not in allowed:
            words = " ".join(answer.text.split())[:300]
            raise ConfigError(f"registry {self.base}: {method} {path} gave HTTP {answer.status_code}: {words}")
        return answer

    def _authorize(self, challenge: Challenge) -> str:
        own = basic(self.login) if self.login else ""
        if challenge.scheme != "bearer":
            return own
        realm = challenge.realm
        if httpx.URL(realm).scheme != "https" and httpx.URL(self.base).scheme == "https":
            raise ConfigError(f"registry {self.base} asks for a login at '{realm}', which is not https")
        url = challenge.token_url(self.repository, "pull,push")
        answer = self.client.get(url, headers={"Authorization": own} if own else {})
        if answer.status_code != 200:
            raise ConfigError(f"registry {self.base}: the login at {realm} failed (HTTP {answer.status_code})")
        body = answer.json()
        return f"Bearer {body.get('token') or body.get('access_token', '')}"


def push(image: PackedImage, registry: Registry, tag: str) -> str:
    """Pushes an image, and returns its digest.

    Raises:
        ConfigError: The registry refuses it, or does not answer.
    """
    for blob in image.blobs:
        if not registry.has(blob):
            registry.upload(blob)
    for manifest in image.manifests:
        registry.put_manifest(manifest, manifest.digest)
    registry.put_manifest(image.index, tag)
    return image.index.digest


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            yield part
