"""Pushing an adapter to a real registry: Debian's docker-registry, where it is installed."""

import hashlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from helpers.adapter_files import write_adapter
from helpers.command_line import kaito

PROGRAM = shutil.which("docker-registry")
WAIT_SECONDS = 30.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs Debian's package docker-registry"),
]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    process = subprocess.Popen([str(PROGRAM), "serve", str(config)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                httpx.get(f"http://{host}/v2/").raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
        yield host
    finally:
        process.terminate()
        process.wait(WAIT_SECONDS)


def test_folder_and_archive_are_one_image_in_the_registry(registry: str, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "style")
    packed = kaito("adapter", "pack", folder, "-o", tmp_path / "style.tar", HOME=str(tmp_path))
    assert packed.returncode == 0, packed.stderr
    digests = set()
    for tag, source in (("1", folder), ("2", tmp_path / "style.tar")):
        result = kaito("adapter", "push", source, f"{registry}/team/style:{tag}", "--plain-http", HOME=str(tmp_path))
        assert result.returncode == 0, result.stderr
        digests.add(result.stdout.strip().partition("@")[2])
    (digest,) = digests
    accept = {"Accept": "application/vnd.oci.image.index.v1+json"}
    answer = httpx.get(f"http://{registry}/v2/team/style/manifests/2", headers=accept)
    assert digest == f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    manifest = httpx.get(
        f"http://{registry}/v2/team/style/manifests/{answer.json()['manifests'][0]['digest']}",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    ).json()
    for layer in manifest["layers"]:
        content = httpx.get(f"http://{registry}/v2/team/style/blobs/{layer['digest']}").content
        assert layer["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
