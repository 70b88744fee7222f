"""A registry in this process: tokens, manifests, blobs with ranges and redirects."""

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from helpers.archive_files import Entry, tar
from helpers.faulty_server import Fault, Site, reply

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass
class ImageRegistry:
    """What a registry answers; a site asks it before its files.

    Attributes:
        login: User and password that a token costs, "" for none.
        asked: Scopes that tokens were asked for.
    """

    site: Site
    login: str = ""
    asked: list[str] = field(default_factory=list)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.site.answer = self._answer

    def blob(self, content: bytes) -> dict[str, Any]:
        """Stores a blob, and returns its descriptor."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.site.files[f"/store/{digest}"] = content
        return {"digest": digest, "size": len(content)}

    def image(self, name: str, *layers: bytes, **changes: Any) -> str:
        """Stores an image of one platform under an index, and returns the digest of its manifest."""
        descriptors = [{"mediaType": _LAYER, **self.blob(layer)} for layer in layers]
        return self.manifest(name, {"layers": descriptors, **changes}, index=True)

    def artifact(self, name: str, files: dict[str, bytes]) -> str:
        """Stores an artifact as `oras push` does."""
        layers = [
            {
                "mediaType": "application/octet-stream",
                **self.blob(content),
                "annotations": {"org.opencontainers.image.title": title},
            }
            for title, content in files.items()
        ]
        return self.manifest(name, {"artifactType": "application/vnd.kaito.adapter", "layers": layers})

    def manifest(self, name: str, document: object, *, index: bool = False) -> str:
        """Stores a manifest, and returns its digest."""
        text = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
        repository, _, tag = name.partition(":")
        self.manifests[f"{repository}/{digest}"] = self.manifests[f"{repository}/{tag}"] = (_MANIFEST, text)
        if index:
            entries = [
                {"digest": "sha256:" + "0" * 64, "size": 1, "platform": {"os": "unknown"}},
                {"digest": digest, "size": len(text), "platform": {"os": "linux"}},
            ]
            self.manifests[f"{repository}/{tag}"] = (_INDEX, json.dumps({"manifests": entries}).encode())
        return digest

    def _answer(self, handler: BaseHTTPRequestHandler) -> bool:
        path, _, query = handler.path.partition("?")
        if path.startswith("/token"):
            self.asked.append(query)
            basic = base64.b64encode(self.login.encode()).decode()
            if self.login and handler.headers.get("Authorization") != f"Basic {basic}":
                return reply(handler, 401)
            return reply(handler, 200, json.dumps({"token": "t0ken"}).encode())
        if not path.startswith("/v2/"):
            return False
        if handler.headers.get("Authorization") != "Bearer t0ken":
            challenge = f'Bearer realm="{self.site.url}/token",service="registry"'
            return reply(handler, 401, WWW_Authenticate=challenge)
        kind, _, name = path.removeprefix("/v2/").rpartition("/")
        repository, _, what = kind.rpartition("/")
        if what == "manifests":
            found = self.manifests.get(f"{repository}/{name}")
            return reply(handler, 404) if found is None else reply(handler, 200, found[1], Content_Type=found[0])
        if what == "blobs":  # kept elsewhere, as registries in clouds do
            return reply(handler, 307, Location=f"{self.site.url}/store/{name}")
        return reply(handler, 404)


def layer(*entries: Entry, packed: bool = True) -> bytes:
    """Returns a layer."""
    content = tar(*entries)
    return gzip.compress(content, mtime=0) if packed else content


__all__ = ["Entry", "Fault", "ImageRegistry", "layer"]
