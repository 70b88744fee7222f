"""Writes small container images the two ways that tools save them."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Files = Mapping[str, bytes | None]
"""Path to content; None makes a whiteout of the path."""


def layer(files: Files, links: Mapping[str, str] | None = None) -> bytes:
    """Returns a gzip-compressed layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            path = Path(name)
            member = tarfile.TarInfo(str(path.with_name(f".wh.{path.name}")) if content is None else name)
            member.size = len(content or b"")
            tar.addfile(member, io.BytesIO(content or b""))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return buffer.getvalue()


def _blob(root: Path, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    path = root / "blobs" / "sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def oci_layout(root: Path, images: Mapping[str, Sequence[bytes]]) -> Path:
    """Writes an OCI layout that holds images, layers by name."""
    root.mkdir(parents=True)
    manifests = []
    for name, layers in images.items():
        manifest = {"schemaVersion": 2, "layers": [_blob(root, content) for content in layers]}
        descriptor = _blob(root, json.dumps(manifest).encode())
        manifests.append({**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}})
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return root


def docker_archive(
    path: Path, name: str, layers: Sequence[bytes], links: Mapping[str, str] | None = None, mode: str = "w"
) -> Path:
    """Writes what `docker save` wrote before it wrote OCI layouts; `links` are layers that link to others."""
    names = [f"{index}/layer.tar" for index in range(len(layers))]
    manifest = json.dumps([{"RepoTags": [name], "Layers": [*names, *(links or {})]}]).encode()
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for entry, content in zip([*names, "manifest.json"], [*layers, manifest], strict=True):
            member = tarfile.TarInfo(entry)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for entry, target in (links or {}).items():
            member = tarfile.TarInfo(entry)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def tarred(folder: Path, path: Path) -> Path:
    """Returns a folder as a tar file."""
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname=".")
    return path
