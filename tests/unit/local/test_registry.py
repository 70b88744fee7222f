"""Pushing images, against a registry in this process that checks what the protocol says."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from helpers.adapter_files import write_adapter
from kaito_core.errors import ConfigError
from kaito_core.local.pack import pack, packed, read_packed
from kaito_core.local.registry import Registry, docker_login, push, split_reference

REPOSITORY = "team/style"


class Memory:
    """A registry that keeps blobs and manifests; with `token` it wants one, which it gives to user and password."""

    def __init__(self, token: str = "") -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.token = token
        self.requests: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.requests.append(f"{request.method} {path}")
        if path == "/token":
            asked = request.url.params
            right = request.headers.get("Authorization") == "Basic dXNlcjpwYXNz"
            assert asked["scope"] == f"repository:{REPOSITORY}:pull,push" and asked["service"] == "memory"
            return httpx.Response(200, json={"token": self.token}) if right else httpx.Response(401)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            realm = 'Bearer realm="https://registry.example/token",service="memory"'
            return httpx.Response(401, headers={"WWW-Authenticate": realm})
        content = request.read()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        match request.method, path.removeprefix(f"/v2/{REPOSITORY}").split("/")[1:]:
            case "HEAD", ["blobs", name]:
                return httpx.Response(200 if name in self.blobs else 404)
            case "POST", ["blobs", "uploads", ""]:
                return httpx.Response(202, headers={"Location": f"/v2/{REPOSITORY}/blobs/uploads/1?state=x"})
            case "PUT", ["blobs", "uploads", "1"]:
                assert request.url.params["state"] == "x"
                if request.url.params["digest"] != digest:
                    return httpx.Response(400, text="DIGEST_INVALID")
                self.blobs[digest] = content
                return httpx.Response(201)
            case "PUT", ["manifests", name]:
                document = json.loads(content)
                parts = [*document.get("layers", []), *([document["config"]] if "config" in document else [])]
                if not all(part["digest"] in self.blobs for part in parts):
                    return httpx.Response(404, text="MANIFEST_BLOB_UNKNOWN")
                if not all(part["digest"] in self.manifests for part in document.get("manifests", [])):
                    return httpx.Response(404, text="MANIFEST_UNKNOWN")
                self.manifests |= {digest: content, name: content}
                return httpx.Response(201)
        raise AssertionError(f"not of the protocol: {request.method} {request.url}")


def registry(memory: Callable[[httpx.Request], httpx.Response], login: tuple[str, str] | None = None) -> Registry:
    client = httpx.Client(transport=httpx.MockTransport(memory))
    return Registry(client, "https://registry.example", REPOSITORY, login)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "style")


def test_a_pushed_image_is_whole(adapter: Path) -> None:
    memory = Memory()
    with packed(adapter) as image:
        digest = push(image, registry(memory), "1")
    assert hashlib.sha256(memory.manifests["1"]).hexdigest() == digest.removeprefix("sha256:")
    for entry in json.loads(memory.manifests["1"])["manifests"]:
        manifest = json.loads(memory.manifests[entry["digest"]])
        assert all(len(memory.blobs[layer["digest"]]) == layer["size"] for layer in manifest["layers"])


def test_blobs_that_are_there_are_not_sent_again(adapter: Path) -> None:
    memory = Memory()
    with packed(adapter) as image:
        first = push(image, registry(memory), "1")
        memory.requests.clear()
        assert push(image, registry(memory), "2") == first
    assert not [request for request in memory.requests if request.startswith("POST")]


def test_an_archive_is_pushed_as_its_folder_would_be(adapter: Path, tmp_path: Path) -> None:
    pack(adapter, tmp_path / "image.tar", "style:1")
    memory = Memory()
    with packed(adapter) as image, read_packed(tmp_path / "image.tar") as archive:
        assert push(image, registry(memory), "1") == push(archive, registry(memory), "1")


def test_a_token_is_asked_for_with_the_login(adapter: Path) -> None:
    memory = Memory(token="secret")
    with packed(adapter) as image:
        push(image, registry(memory, ("user", "pass")), "1")
        assert "1" in memory.manifests
        with pytest.raises(ConfigError, match=r"the login at https://registry.example/token failed \(HTTP 401\)"):
            push(image, registry(memory, ("user", "wrong")), "1")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(403), "refuses access to 'team/style'"),
        (httpx.Response(500, text="out of disk"), r"gave HTTP 500: out of disk"),
    ],
)
def test_refusals_are_said(adapter: Path, answer: httpx.Response, words: str) -> None:
    with packed(adapter) as image, pytest.raises(ConfigError, match=words):
        push(image, registry(lambda request: answer), "1")


def test_a_registry_that_is_not_there_is_named(adapter: Path) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    with packed(adapter) as image, pytest.raises(ConfigError, match=r"registry https://registry.example cannot be"):
        push(image, registry(away), "1")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("registry.example/team/style:1", ("registry.example", "team/style", "1")),
        ("localhost:5000/style", ("localhost:5000", "style", "latest")),
        ("team/style:1", ("registry-1.docker.io", "team/style", "1")),
        ("style", ("registry-1.docker.io", "library/style", "latest")),
    ],
)
def test_references_name_a_registry(reference: str, parts: tuple[str, str, str]) -> None:
    assert split_reference(reference) == parts


def test_what_is_no_reference_is_refused() -> None:
    for reference in ("Style:1", "style@sha256:" + "0" * 64):
        with pytest.raises(ConfigError, match="must be an image reference with a tag"):
            split_reference(reference)


def test_the_login_is_that_of_docker(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"https://registry.example": {"auth": "dXNlcjpwYXNz"}}}))
    assert docker_login("registry.example", tmp_path / "config.json") == ("user", "pass")
    assert docker_login("other.example", tmp_path / "config.json") is None
    assert docker_login("registry.example", tmp_path / "nothing.json") is None
