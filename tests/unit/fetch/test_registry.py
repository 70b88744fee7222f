"""Images and artifacts from a registry."""

import base64
import json
from pathlib import Path

import pytest

from helpers.faulty_server import Fault, Site
from helpers.fetched_adapters import CONFIG, tensors
from helpers.image_registry import Entry, ImageRegistry, layer
from kaito_core.api.fetching import ADAPTER_FILES
from kaito_core.errors import FetchError
from kaito_core.fetch.sources.registry import ImageReference
from unit.fetch.conftest import fetching, untouched

FILES = {ADAPTER_FILES[0]: json.dumps(CONFIG).encode(), ADAPTER_FILES[1]: tensors(200_000)}
LAYERS = (
    layer(Entry("bin/sh", b"#!")),
    layer(*(Entry(f"data/{name}", content) for name, content in FILES.items()), packed=False),
)


@pytest.fixture
def registry(site: Site) -> ImageRegistry:
    return ImageRegistry(site, login="u:p")


def environ(registry: ImageRegistry, auth: str = "u:p", host: str = "") -> dict[str, str]:
    entry = {"auth": base64.b64encode(auth.encode()).decode()}
    config = {"auths": {host or registry.site.url.removeprefix("http://"): entry}}
    return {"KAITO_SECRET": "mine", "KAITO_SECRET_.dockerconfigjson": json.dumps(config)}


def uri(registry: ImageRegistry, name: str) -> str:
    return f"image://{registry.site.url.removeprefix('http://')}/{name}"


def contents(to: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in to.iterdir()}


def test_an_image_is_pulled_layer_by_layer(registry: ImageRegistry, tmp_path: Path) -> None:
    digest = registry.image("team/style:1", *LAYERS)
    fetching(environ(registry)).fetch([uri(registry, "team/style:1")], tmp_path / "to")
    assert contents(tmp_path / "to") == FILES
    assert "scope=repository%3Ateam%2Fstyle%3Apull" in registry.asked[0] and "service=registry" in registry.asked[0]
    fetching(environ(registry)).fetch([uri(registry, f"team/style@{digest}")], tmp_path / "pinned")
    assert contents(tmp_path / "pinned") == FILES


def test_a_blob_goes_on_where_it_ended(registry: ImageRegistry, tmp_path: Path) -> None:
    registry.image("team/style:1", *LAYERS)
    registry.site.faults = [Fault(), Fault(cut=5000)]
    fetching(environ(registry)).fetch([uri(registry, "team/style:1")], tmp_path / "to")
    assert contents(tmp_path / "to") == FILES
    assert any("range" in headers for path, headers in registry.site.asked if path.startswith("/store"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda r: environ(r, "u:wrong"), "asked with the key .dockerconfigjson of Secret 'mine'"),
        (lambda r: environ(r, host="other.example"), "the key .dockerconfigjson of Secret 'mine'"),
        (lambda r: {}, "no credentials: there is no key .dockerconfigjson or username or password"),
        (
            lambda r: {"KAITO_SECRET": "mine", "KAITO_SECRET_.dockerconfigjson": "{"},
            "the key .dockerconfigjson of Secret 'mine' cannot be read",
        ),
    ],
)
def test_wrong_credentials_name_secret_and_key(
    registry: ImageRegistry, tmp_path: Path, given: object, words: str
) -> None:
    registry.image("team/style:1", *LAYERS)
    with pytest.raises(FetchError) as caught:
        fetching(given(registry)).fetch([uri(registry, "team/style:1")], tmp_path / "to")  # type: ignore[operator]
    assert words in str(caught.value) and "wrong" not in str(caught.value).replace("u:wrong", "")
    assert untouched(tmp_path / "to")


def test_what_is_not_there_is_named(registry: ImageRegistry, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"responded with 404: there is no .*/team/style:2"):
        fetching(environ(registry)).fetch([uri(registry, "team/style:2")], tmp_path / "to")
    registry.manifest("team/style:3", {"layers": [{"digest": "md5:1", "size": 1}]})
    with pytest.raises(FetchError, match="lists something that has no sha256 digest and size"):
        fetching(environ(registry)).fetch([uri(registry, "team/style:3")], tmp_path / "to")
    registry.manifest("team/style:4", {"manifests": []})
    with pytest.raises(FetchError, match="its index lists no image"):
        fetching(environ(registry)).fetch([uri(registry, "team/style:4")], tmp_path / "to")
    registry.manifests["team/style/sha256:" + "0" * 64] = ("", b"{}")
    with pytest.raises(FetchError, match="has the digest sha256:44136fa"):
        fetching(environ(registry)).fetch([uri(registry, "team/style@sha256:" + "0" * 64)], tmp_path / "to")


def test_a_blob_with_another_digest_is_refused(registry: ImageRegistry, tmp_path: Path) -> None:
    registry.image("team/style:1", *LAYERS)
    path = next(path for path in registry.site.files)
    registry.site.files[path] = b"x" * len(registry.site.files[path])
    with pytest.raises(FetchError, match=r"has the digest sha256:\w+, the source lists sha256:"):
        fetching(environ(registry)).fetch([uri(registry, "team/style:1")], tmp_path / "to")
    assert untouched(tmp_path / "to")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("style", ("registry-1.docker.io", "library/style", "latest")),
        ("team/style:2", ("registry-1.docker.io", "team/style", "2")),
        ("localhost:5000/a/b:c", ("localhost:5000", "a/b", "c")),
        (f"ghcr.io/t/s:1@sha256:{'a' * 64}", ("ghcr.io", "t/s", f"sha256:{'a' * 64}")),
    ],
)
def test_references(text: str, parts: tuple[str, str, str]) -> None:
    found = ImageReference.parse(text)
    assert (found.host, found.name, found.version) == parts


@pytest.mark.parametrize("text", ["", "A/b", "a b", "x/../y", "reg.example/", "a@md5:1", "a:" + "t" * 200])
def test_no_references(text: str) -> None:
    with pytest.raises(FetchError, match="must be a reference such as"):
        ImageReference.parse(text)
