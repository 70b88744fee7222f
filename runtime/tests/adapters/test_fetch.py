import io
import shutil
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kaito_runtime.adapters.fetch import ADAPTER_FILES, FetchError, _is_internal, digest_of, fetch_adapter, fetch_model
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.testing.models import load_fp32


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A web server and the folder that it serves."""
    monkeypatch.setattr("kaito_runtime.adapters.fetch._RETRIES", 0)  # each takes its time
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def adapter(tiny_adapters: Path) -> Path:
    return tiny_adapters / "one"


def same(to: Path, adapter: Path) -> bool:
    return sorted(path.name for path in to.iterdir()) == sorted(ADAPTER_FILES) and all(
        (to / name).read_bytes() == (adapter / name).read_bytes() for name in ADAPTER_FILES
    )


def untouched(to: Path) -> bool:
    """Whether neither the folder nor anything beside it is there."""
    return not to.exists() and not [path for path in to.parent.iterdir() if path.name.startswith(f".{to.name}")]


def pack(adapter: Path, archive: Path, prefix: str) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for name in ADAPTER_FILES:
                opened.write(adapter / name, f"{prefix}{name}")
        return
    with tarfile.open(archive, "w:gz" if archive.name.endswith("gz") else "w") as tape:
        for name in ADAPTER_FILES:
            tape.add(adapter / name, f"{prefix}{name}")


def test_local_folder(adapter: Path, tmp_path: Path) -> None:
    fetch_adapter([str(adapter)], tmp_path / "deep" / "to")
    assert same(tmp_path / "deep" / "to", adapter)


@pytest.mark.parametrize("prefix", ["", "./", "adapter/", "a/b/"])
@pytest.mark.parametrize("archive", ["x.tar", "x.tar.gz", "x.tgz", "x.zip"])
def test_archive(site: tuple[str, Path], adapter: Path, tmp_path: Path, archive: str, prefix: str) -> None:
    url, folder = site
    pack(adapter, folder / archive, prefix)
    fetch_adapter([f"{url}/{archive}?token=secret"], tmp_path / "to")
    assert same(tmp_path / "to", adapter)
    assert (tmp_path / "to").stat().st_mode & 0o777 == 0o755


def test_url_of_a_folder_and_urls_of_files(site: tuple[str, Path], adapter: Path, tmp_path: Path) -> None:
    url, folder = site
    shutil.copytree(adapter, folder / "adapter")
    fetch_adapter([f"{url}/adapter/"], tmp_path / "to")
    assert same(tmp_path / "to", adapter)
    fetch_adapter([f"{url}/adapter/{name}" for name in ADAPTER_FILES], tmp_path / "again")
    assert same(tmp_path / "again", adapter)


def test_digest_is_the_one_that_the_server_checks(tiny_llama: Path, adapter: Path, tmp_path: Path) -> None:
    digest = digest_of(adapter)
    assert read_adapter(adapter, load_fp32(tiny_llama), name="a", digest=digest).digest == digest
    fetch_adapter([str(adapter)], tmp_path / "to", digest)
    with pytest.raises(FetchError, match=f"has the digest {digest}, expected sha256:0"):
        fetch_adapter([str(adapter)], tmp_path / "other", "sha256:0")
    assert untouched(tmp_path / "other")


def test_replaced_as_a_whole_or_not_at_all(adapter: Path, tiny_adapters: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    fetch_adapter([str(adapter)], to)
    (to / "left over").touch()
    with pytest.raises(FetchError):
        fetch_adapter([str(tiny_adapters / "none")], to)
    assert (to / "left over").exists()
    fetch_adapter([str(tiny_adapters / "two")], to)
    assert same(to, tiny_adapters / "two")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_in_an_archive_choose_no_path(site: tuple[str, Path], adapter: Path, tmp_path: Path, kind: str) -> None:
    url, folder = site
    pack(adapter, folder / f"evil.{kind}", "../../evil/")
    with pytest.raises(FetchError, match=rf"evil.{kind} holds '../../evil/.*', which points out of the archive"):
        fetch_adapter([f"{url}/evil.{kind}"], tmp_path / "to")
    assert untouched(tmp_path / "to")
    assert not list(tmp_path.rglob("evil/*"))


class Redirects(Quiet):
    """Sends every request elsewhere."""

    target = ""
    port = 0

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.target + self.path)
        self.end_headers()


@pytest.fixture
def redirect(site: tuple[str, Path]) -> Iterator[type[Redirects]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirects)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    Redirects.port = server.server_port
    yield Redirects
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "2130706433", "[::ffff:127.0.0.1]", "169.254.169.254"])
def test_redirects_to_internal_addresses_are_refused(
    site: tuple[str, Path], redirect: Any, adapter: Path, tmp_path: Path, host: str
) -> None:
    url, folder = site
    shutil.copytree(adapter, folder / "x")
    redirect.target = f"http://{host}:{url.rpartition(':')[2]}"
    with pytest.raises(FetchError, match=r"redirects to .* an internal address"):
        fetch_adapter([f"http://127.0.0.1:{redirect.port}/x"], tmp_path / "to")
    assert untouched(tmp_path / "to")


def test_redirects_within_the_host_that_was_named_are_followed(
    site: tuple[str, Path], redirect: Any, adapter: Path, tmp_path: Path
) -> None:
    url, folder = site
    shutil.copytree(adapter, folder / "x")
    redirect.target = url
    fetch_adapter([f"http://127.0.0.1:{redirect.port}/x"], tmp_path / "to")
    assert same(tmp_path / "to", adapter)


@pytest.mark.parametrize(
    ("address", "internal"),
    [
        ("10.0.0.1", True),
        ("169.254.169.254", True),
        ("168.63.129.16", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:10.0.0.1", True),
        ("224.0.0.1", True),
        ("1.1.1.1", False),
        ("2606:4700:4700::1111", False),
    ],
)
def test_internal_addresses(address: str, internal: bool) -> None:
    assert _is_internal(address) is internal


def test_links_out_of_an_archive_are_refused(site: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = site
    (tmp_path / "secret").write_text("secret")
    with tarfile.open(folder / "link.tar", "w") as tape:
        for name in ADAPTER_FILES:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
            tape.addfile(link)
    with pytest.raises(FetchError, match=r"link.tar holds the link 'adapter_config.json' .* points out of the archive"):
        fetch_adapter([f"{url}/link.tar"], tmp_path / "to")
    assert untouched(tmp_path / "to")


def test_archive_with_two_adapters_is_refused(site: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = site
    with tarfile.open(folder / "two.tar", "w") as tape:
        for name in ("a/adapter_config.json", "b/adapter_config.json"):
            tape.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(FetchError, match="has several adapters: a, b"):
        fetch_adapter([f"{url}/two.tar"], tmp_path / "to")


def test_broken_archive_is_refused(site: tuple[str, Path], adapter: Path, tmp_path: Path) -> None:
    url, folder = site
    (folder / "text.tar").write_text("not found")
    pack(adapter, folder / "cut.tar.gz", "")
    (folder / "cut.tar.gz").write_bytes((folder / "cut.tar.gz").read_bytes()[:300])
    for name in ("text.tar", "cut.tar.gz"):
        with pytest.raises(FetchError, match=f"{name} is not a readable archive"):
            fetch_adapter([f"{url}/{name}"], tmp_path / "to")
    assert untouched(tmp_path / "to")


def test_archives_with_faults_are_refused(site: tuple[str, Path], adapter: Path, tmp_path: Path) -> None:
    url, folder = site
    with zipfile.ZipFile(folder / "deflate.zip", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.write(adapter / ADAPTER_FILES[0], ADAPTER_FILES[0])
    content = bytearray((folder / "deflate.zip").read_bytes())
    content[30 + len(ADAPTER_FILES[0])] = 0xFF  # the first byte of the compressed content
    (folder / "deflate.zip").write_bytes(content)
    with tarfile.open(folder / "dangling.tar", "w") as tape:
        link = tarfile.TarInfo(ADAPTER_FILES[0])
        link.type, link.linkname = tarfile.SYMTYPE, "gone"
        tape.addfile(link)
    with tarfile.open(folder / "bomb.tar.gz", "w:gz") as tape:
        bomb = tarfile.TarInfo(ADAPTER_FILES[1])
        bomb.size = 65 << 20
        tape.addfile(bomb, io.BytesIO(bytes(bomb.size)))
    for name, message in [
        ("deflate.zip", "is not a readable archive: Error -3"),
        ("dangling.tar", "holds the link 'adapter_config.json' to 'gone', which leads nowhere"),
        ("bomb.tar.gz", "unpacks to more than 67,108,864 bytes"),
    ]:
        with pytest.raises(FetchError, match=f"{name} {message}"):
            fetch_adapter([f"{url}/{name}"], tmp_path / "to")
        assert untouched(tmp_path / "to")


def test_links_within_an_archive_are_followed(site: tuple[str, Path], adapter: Path, tmp_path: Path) -> None:
    url, folder = site
    config, tensors = ADAPTER_FILES
    with tarfile.open(folder / "link.tar", "w") as tape:
        tape.add(adapter / config, f"best/{config}")
        link = tarfile.TarInfo(f"best/{tensors}")
        link.type, link.linkname = tarfile.SYMTYPE, f"../last/{tensors}"
        tape.addfile(link)
        tape.add(adapter / tensors, f"last/{tensors}")
    fetch_adapter([f"{url}/link.tar"], tmp_path / "to")
    assert same(tmp_path / "to", adapter)
    assert not any(path.is_symlink() for path in (tmp_path / "to").iterdir())


@pytest.mark.parametrize("announced", [True, False])
def test_downloads_have_an_end(
    site: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    url, folder = site
    if not announced:
        monkeypatch.setattr(Quiet, "send_header", lambda handler, name, value: None)  # HTTP/1.0: until it closes
    (folder / "large.tar").write_bytes(bytes(300_000))
    copied: list[bytes] = []
    monkeypatch.setattr("kaito_runtime.adapters.fetch._LARGEST_DOWNLOAD", 200_000)
    monkeypatch.setattr("tempfile._TemporaryFileWrapper.write", lambda file, chunk: copied.append(chunk), raising=False)
    with pytest.raises(FetchError, match=r"large.tar is larger than 200,000 bytes, the limit of a download"):
        fetch_adapter([f"{url}/large.tar?token=secret"], tmp_path / "to")
    assert sum(map(len, copied)) <= (0 if announced else 200_000)
    assert bool(copied) is not announced
    assert untouched(tmp_path / "to")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{url}/missing.tar", "missing.tar responded with 404 "),
        ("{url}/missing", "missing/adapter_config.json responded with 404 "),
        ("http://user:secret@127.0.0.1:9/x.tar?key=secret", r"^http://127.0.0.1:9/x.tar: "),
        ("ftp://host/x", "unknown scheme 'ftp', known: https, http, hf"),
        ("/none", "/none is not a folder"),
        ("hf://name", "must be hf://org/name"),
        ("https://[bad/x.tar", "a source is not a URL"),
        ("https://host:port/x.tar", "a source is not a URL"),
    ],
)
def test_what_cannot_be_fetched_is_named_without_secrets(
    site: tuple[str, Path], tmp_path: Path, source: str, message: str
) -> None:
    with pytest.raises(FetchError, match=message) as caught:
        fetch_adapter([source.format(url=site[0])], tmp_path / "to")
    assert "secret" not in str(caught.value)
    assert untouched(tmp_path / "to")


def test_adapter_without_safetensors_is_refused(adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "pickle")
    (tmp_path / "pickle" / ADAPTER_FILES[1]).rename(tmp_path / "pickle" / "adapter_model.bin")
    with pytest.raises(FetchError, match=r"has no adapter_model.safetensors"):
        fetch_adapter([str(tmp_path / "pickle")], tmp_path / "to")
    with pytest.raises(FetchError, match=r"'adapter_model.bin' is not a file of an adapter"):
        fetch_adapter(["http://127.0.0.1:9/adapter_model.bin", "http://127.0.0.1:9/x"], tmp_path / "to")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, adapter: Path) -> list[dict[str, Any]]:
    """Stands in for the hub's client; keeps what it was asked for."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> None:
        asked.append({"repository": repository, **options})
        if repository == "org/gone":
            raise OSError("404 Client Error.\nRequest ID: 1")
        for pattern in options["allow_patterns"]:
            if pattern.endswith(ADAPTER_FILES):
                target = Path(options["local_dir"]) / pattern
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(adapter / target.name, target)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    return asked


@pytest.mark.parametrize(
    ("source", "repository", "revision", "inside"),
    [
        ("hf://org/name", "org/name", "main", ""),
        ("hf://org/name@v1", "org/name", "v1", ""),
        ("hf://org/name@v1/a/b", "org/name", "v1", "a/b/"),
    ],
)
def test_hub(
    hub: list[dict[str, Any]], adapter: Path, tmp_path: Path, source: str, repository: str, revision: str, inside: str
) -> None:
    fetch_adapter([source], tmp_path / "to")
    assert same(tmp_path / "to", adapter)
    assert (hub[0]["repository"], hub[0]["revision"]) == (repository, revision)
    assert hub[0]["allow_patterns"] == [f"{inside}{name}" for name in ADAPTER_FILES]


def test_hub_errors_are_one_line(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"^org/gone@main cannot be fetched: 404 Client Error.$"):
        fetch_adapter(["hf://org/gone"], tmp_path / "to")


def test_weights_are_fetched_without_pickles(
    hub: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "token")
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    fetch_model("org/model", "abc", tmp_path)
    assert hub[0]["token"] == "token"
    assert not any(pattern.endswith((".bin", ".pt", "*")) for pattern in hub[0]["allow_patterns"])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FetchError, match=r"org/model@abc has no config.json or no \*.safetensors"):
        fetch_model("org/model", "abc", tmp_path)
