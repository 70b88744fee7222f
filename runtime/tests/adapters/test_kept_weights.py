"""Weights on a volume that several pods use: fetched once, complete or absent, whatever happens in between."""

import errno
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kaito_runtime.adapters import kept_weights
from kaito_runtime.adapters.fetch import FetchError
from kaito_runtime.adapters.kept_weights import MANIFEST, keep_model

Fetch = Callable[[str, str, Path], None]


class Hub:
    """A hub with one model; counts downloads, and may fail after some files."""

    def __init__(self, fails_after: int | None = None, error: BaseException | None = None) -> None:
        self.files = {"config.json": b"{}", "a.safetensors": b"a" * 1000, "sub/b.safetensors": b"b" * 10}
        self.downloads: list[str] = []
        self.fails_after, self.error = fails_after, error or FetchError("the hub is gone")

    def fetch(self, repository: str, revision: str, to: Path) -> None:
        for number, (name, content) in enumerate(self.files.items()):
            if number == self.fails_after:
                raise self.error
            path = to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                self.downloads.append(name)
                path.write_bytes(content)
        (to / ".cache").mkdir(exist_ok=True)
        (to / ".cache" / "notes").write_text("of the client")


def keep(hub: Hub, to: Path, revision: str = "r1") -> bool:
    return keep_model("org/model", revision, to, fetch=hub.fetch, sleep=lambda seconds: None)


def test_the_second_pod_downloads_nothing(tmp_path: Path) -> None:
    hub, to = Hub(), tmp_path / "org--model" / "r1"
    assert keep(hub, to) is True
    assert keep(hub, to) is False
    assert hub.downloads == list(hub.files)
    assert {str(p.relative_to(to)) for p in to.rglob("*") if p.is_file()} == {*hub.files, MANIFEST}
    manifest = json.loads((to / MANIFEST).read_text())
    assert (manifest["repository"], manifest["revision"]) == ("org/model", "r1")
    assert {name: facts["size"] for name, facts in manifest["files"].items()} == {
        name: len(content) for name, content in hub.files.items()
    }
    assert not [path for path in to.parent.iterdir() if path.name.endswith(".part")]


def test_an_interrupted_fetch_leaves_nothing_to_serve_and_is_taken_up(tmp_path: Path) -> None:
    to = tmp_path / "r1"
    with pytest.raises(FetchError, match="the hub is gone"):
        keep(Hub(fails_after=2), to)
    assert not to.exists()
    hub = Hub()
    assert keep(hub, to) is True
    assert hub.downloads == ["sub/b.safetensors"], "what was there was fetched again"


def test_two_at_once_fetch_once(tmp_path: Path) -> None:
    hub, to = Hub(), tmp_path / "r1"
    began, go_on, waited = threading.Event(), threading.Event(), threading.Event()

    def slow(repository: str, revision: str, folder: Path) -> None:
        began.set()
        assert go_on.wait(10)
        hub.fetch(repository, revision, folder)

    def wait(seconds: float) -> None:
        waited.set()
        go_on.set()
        threading.Event().wait(0.01)

    results: dict[str, bool] = {}

    def run(name: str, fetch: Fetch) -> None:
        results[name] = keep_model("org/model", "r1", to, fetch=fetch, sleep=wait)

    first = threading.Thread(target=run, args=("first", slow))
    first.start()
    assert began.wait(10)
    second = threading.Thread(target=run, args=("second", hub.fetch))
    second.start()
    first.join(10)
    second.join(10)
    assert waited.is_set()
    assert results == {"first": True, "second": False}
    assert hub.downloads == list(hub.files)


def test_without_locks_the_first_to_end_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(kept_weights.fcntl, "flock", no_locks)
    hub, to = Hub(), tmp_path / "r1"

    def overtaken(repository: str, revision: str, folder: Path) -> None:
        hub.fetch(repository, revision, folder)
        monkeypatch.setattr(kept_weights.socket, "gethostname", lambda: "other")
        assert keep(hub, to) is True

    assert keep_model("org/model", "r1", to, fetch=overtaken) is True
    assert (to / MANIFEST).exists()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["r1"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda to: (to / "a.safetensors").write_bytes(b"a"), "has 1 bytes instead of 1000"),
        (lambda to: (to / "a.safetensors").unlink(), "is missing"),
        (lambda to: (to / MANIFEST).write_text("{"), "cannot be read"),
        (lambda to: (to / MANIFEST).write_text("[]"), "cannot be read"),
    ],
)
def test_damage_is_named_and_never_served(damage: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    hub, to = Hub(), tmp_path / "r1"
    keep(hub, to)
    damage(to)
    with pytest.raises(FetchError, match=words):
        keep(hub, to)


def test_a_folder_of_other_weights_is_not_taken(tmp_path: Path) -> None:
    hub, to = Hub(), tmp_path / "r1"
    keep(hub, to)
    with pytest.raises(FetchError, match="holds org/model@r1"):
        keep(hub, to, revision="r2")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_volume_is_named(number: int, tmp_path: Path) -> None:
    full = OSError(number, "No space left on device")
    words = "the volume for weights is full; make the claim or the disk larger"
    with pytest.raises(FetchError, match=words):
        keep(Hub(fails_after=1, error=full), tmp_path / "r1")
    wrapped = FetchError("org/model@r1 cannot be fetched")
    wrapped.__cause__ = full
    with pytest.raises(FetchError, match=words):
        keep(Hub(fails_after=1, error=wrapped), tmp_path / "r1")


def test_a_read_only_volume_serves_what_it_holds_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, to = Hub(), tmp_path / "r1"
    keep(hub, to)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert keep(hub, to) is False
    with pytest.raises(FetchError, match=r"cannot be written by user .*, and does not hold them"):
        keep(hub, tmp_path / "r2")
