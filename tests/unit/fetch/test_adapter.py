"""A fetch of one adapter: complete and right, or nothing; started again, it goes on."""

import hashlib
import threading
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from helpers.archive_files import Entry, tar, zipped
from helpers.faulty_server import Fault, Site, serving
from helpers.fetched_adapters import tensors, write_adapter
from kaito_core.api.fetching import ADAPTER_FILES, digest_of
from kaito_core.errors import FetchError, TransientFetchError
from kaito_core.fetch.cache import Cache
from kaito_core.fetch.download import Patience
from unit.fetch.conftest import fetching, untouched


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter", 3_000_000)


def publish(site: Site, adapter: Path, under: str = "/a") -> None:
    site.files |= {f"{under}/{path.name}": path.read_bytes() for path in adapter.iterdir()}


def same(to: Path, adapter: Path) -> bool:
    names = sorted(path.name for path in to.iterdir())
    return names == sorted(path.name for path in adapter.iterdir()) and all(
        (to / name).read_bytes() == (adapter / name).read_bytes() for name in names
    )


def test_a_folder(adapter: Path, tmp_path: Path) -> None:
    (adapter / "adapter_config.json").chmod(0o755)
    assert fetching().fetch([str(adapter)], tmp_path / "deep" / "to") == digest_of(adapter)
    assert same(tmp_path / "deep" / "to", adapter)
    assert (tmp_path / "deep" / "to").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "deep" / "to" / "adapter_config.json").stat().st_mode & 0o777 == 0o644
    fetching().fetch([adapter.as_uri()], tmp_path / "uri")
    assert same(tmp_path / "uri", adapter)


def test_only_what_an_adapter_needs(tmp_path: Path) -> None:
    files = {"chat_template_jinja": b"{{ x }}", "tokenizer_json": b"{}", "README_md": b"r", "optimizer_pt": b"p"}
    adapter = write_adapter(tmp_path / "adapter", **files)
    fetching().fetch([str(adapter)], tmp_path / "to")
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == [
        *ADAPTER_FILES,
        "chat_template.jinja",
        "tokenizer.json",
    ]


def test_the_digest_covers_the_two_files(adapter: Path, tmp_path: Path) -> None:
    both = b"".join((adapter / name).read_bytes() for name in ADAPTER_FILES)
    digest = f"sha256:{hashlib.sha256(both).hexdigest()}"
    assert fetching().fetch([str(adapter)], tmp_path / "to", digest) == digest
    with pytest.raises(FetchError, match=f"has the digest {digest}, expected sha256:00"):
        fetching().fetch([str(adapter)], tmp_path / "other", "sha256:00")
    assert untouched(tmp_path / "other")


def test_a_pinned_adapter_that_is_there_is_not_fetched_again(site: Site, adapter: Path, tmp_path: Path) -> None:
    publish(site, adapter)
    digest = digest_of(adapter)
    fetching().fetch([f"{site.url}/a"], tmp_path / "to", digest)
    asked = len(site.asked)
    fetching().fetch([f"{site.url}/a"], tmp_path / "to", digest)
    assert len(site.asked) == asked
    (tmp_path / "to" / ADAPTER_FILES[0]).write_text("{}")
    fetching().fetch([f"{site.url}/a"], tmp_path / "to", digest)
    assert same(tmp_path / "to", adapter)


def test_replaced_as_a_whole_or_not_at_all(adapter: Path, tmp_path: Path) -> None:
    to, second = tmp_path / "to", write_adapter(tmp_path / "second", 5)
    fetching().fetch([str(adapter)], to)
    (to / "left over").touch()
    with pytest.raises(FetchError, match="does not exist"):
        fetching().fetch([str(tmp_path / "none")], to)
    assert (to / "left over").exists()
    fetching().fetch([str(second)], to)
    assert same(to, second)


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.zip"])
@pytest.mark.parametrize("prefix", ["", "a/b/"])
def test_archives(site: Site, adapter: Path, tmp_path: Path, name: str, prefix: str) -> None:
    entries = [Entry(f"{prefix}{path.name}", path.read_bytes(), mode=0o755) for path in adapter.iterdir()]
    site.files[f"/{name}"] = zipped(*entries) if name.endswith("zip") else tar(*entries)
    fetching().fetch([f"{site.url}/{name}?token=secret"], tmp_path / "to")
    assert same(tmp_path / "to", adapter)
    assert (tmp_path / "to" / ADAPTER_FILES[0]).stat().st_mode & 0o777 == 0o644


def test_urls_of_a_folder_and_of_files(site: Site, adapter: Path, tmp_path: Path) -> None:
    publish(site, adapter)
    fetching().fetch([f"{site.url}/a/"], tmp_path / "to")
    assert same(tmp_path / "to", adapter)
    fetching().fetch([f"{site.url}/a/{name}?sig=1" for name in ADAPTER_FILES], tmp_path / "again")
    assert same(tmp_path / "again", adapter)
    with pytest.raises(FetchError, match=r"'adapter_model.bin' is not a file of an adapter"):
        fetching().fetch(
            [f"{site.url}/a/{name}" for name in ("adapter_config.json", "adapter_model.bin")], tmp_path / "b"
        )
    with pytest.raises(FetchError, match=r"has 'adapter_config.json' twice"):
        fetching().fetch([f"{site.url}/a/adapter_config.json"] * 2, tmp_path / "b")


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    faults=st.lists(
        st.one_of(
            st.builds(Fault, cut=st.integers(0, 70_000)),
            st.builds(Fault, cut=st.integers(0, 70_000), ranges=st.just(False)),
            st.builds(Fault, extra=st.integers(1, 1000)),
            st.builds(Fault, status=st.sampled_from([408, 429, 500, 502, 503, 504])),
        ),
        max_size=8,
    ),
    changes=st.integers(0, 8),
    etag=st.booleans(),
    stops=st.integers(1, 3),
)
def test_interrupted_anywhere_and_started_again_it_is_complete_or_nothing(
    faults: list[Fault], changes: int, etag: bool, stops: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Also where the content changes on the way: what comes out is one of the two, never a mix."""
    root = tmp_path_factory.mktemp("fetch")
    first, second, to = write_adapter(root / "one", 60_000), write_adapter(root / "two", 50_000), root / "to"
    with serving(Site(faults=list(faults), etag=etag)) as site:
        publish(site, first)
        for turn in range(20):
            if turn == changes:
                publish(site, second)
            try:
                fetching(tries=stops).fetch([f"{site.url}/a"], to)
                break
            except FetchError:
                assert not to.exists()
        else:
            pytest.fail("the server is honest by now")
    assert {path.name for path in to.iterdir()} == set(ADAPTER_FILES)
    assert (to / ADAPTER_FILES[1]).read_bytes() in [(each / ADAPTER_FILES[1]).read_bytes() for each in (first, second)]
    assert not list(root.glob(".to*"))


def test_another_process_goes_on_where_one_ended(site: Site, adapter: Path, tmp_path: Path) -> None:
    publish(site, adapter)
    site.faults = [Fault(), Fault(cut=2_000_000)]
    with pytest.raises(TransientFetchError, match=r"peer closed connection|ended after"):
        fetching(tries=1).fetch([f"{site.url}/a"], tmp_path / "to")
    said: list[str] = []
    fetching(said=said).fetch([f"{site.url}/a"], tmp_path / "to")
    assert same(tmp_path / "to", adapter)
    ranges = [headers["range"] for _, headers in site.asked if "range" in headers]
    assert len(ranges) == 1 and 0 < int(ranges[0].removeprefix("bytes=").removesuffix("-")) <= 2_000_000
    assert any("goes on at" in line for line in said)


def test_what_nobody_could_go_on_with_is_removed(site: Site, adapter: Path, tmp_path: Path) -> None:
    publish(site, adapter)
    site.etag, site.faults = False, [Fault(), Fault(cut=2_000_000)]
    with pytest.raises(TransientFetchError):
        fetching(tries=1).fetch([f"{site.url}/a"], tmp_path / "to")
    assert not list(tmp_path.glob(".to*/*safetensors*")) and not list(tmp_path.glob(".to*/1-file*"))


def test_refusals_are_not_retried_and_leave_nothing(site: Site, tmp_path: Path) -> None:
    site.faults, environ = [Fault(status=403)], {"KAITO_SECRET": "mine", "KAITO_SECRET_token": "s3cret"}
    with pytest.raises(FetchError, match=r"/a/adapter_config.json responded with 403") as caught:
        fetching(environ).fetch([f"{site.url}/a?sig=s3cret"], tmp_path / "to")
    assert "s3cret" not in str(caught.value)
    assert "the key token of Secret 'mine'" in str(caught.value)
    assert len(site.asked) == 1 and site.asked[0][1]["authorization"] == "Bearer s3cret"
    assert untouched(tmp_path / "to")


def test_a_password_goes_to_its_own_host_alone(site: Site, adapter: Path, tmp_path: Path) -> None:
    environ = {"KAITO_SECRET": "mine", "KAITO_SECRET_username": "u", "KAITO_SECRET_password": "p"}
    with serving() as other:
        publish(other, adapter)
        site.faults = [Fault(location=f"{other.url}/a/{name}") for name in ADAPTER_FILES]
        fetching(environ).fetch([f"{site.url}/a"], tmp_path / "to")
        assert all("authorization" in headers for _, headers in site.asked)
        assert not any("authorization" in headers for _, headers in other.asked)


def test_pauses_grow_have_jitter_and_end() -> None:
    patience = Patience()
    pauses = [[patience.pause(failures, 0) for _ in range(50)] for failures in (1, 3, 30)]
    assert all(0.5 <= pause <= 1 for pause in pauses[0])
    assert all(2 <= pause <= 4 for pause in pauses[1])
    assert all(15 <= pause <= 30 for pause in pauses[2])
    assert len(set(pauses[0])) > 10
    assert 30 >= patience.pause(1, 3600) >= 20


def test_two_fetches_of_the_same_ask_once(site: Site, adapter: Path, tmp_path: Path) -> None:
    publish(site, adapter)
    one = fetching(cache=Cache(tmp_path / "cache"))
    threads = [threading.Thread(target=one.fetch, args=([f"{site.url}/a"], tmp_path / f"to{n}")) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(tmp_path / f"to{n}", adapter) for n in range(3))
    assert sorted(path for path, _ in site.asked) == [f"/a/{name}" for name in ADAPTER_FILES]
    # A later fetch of what is not pinned asks again, since the source may have something else.
    fetching(cache=Cache(tmp_path / "cache")).fetch([f"{site.url}/a"], tmp_path / "late")
    assert len(site.asked) == 4


def test_a_pinned_adapter_comes_from_the_cache_unless_it_is_damaged(site: Site, adapter: Path, tmp_path: Path) -> None:
    publish(site, adapter)
    digest, cached = digest_of(adapter), fetching(cache=Cache(tmp_path / "cache"))
    cached.fetch([f"{site.url}/a"], tmp_path / "to")
    cached.fetch([f"{site.url}/gone"], tmp_path / "pinned", digest)
    assert same(tmp_path / "pinned", adapter) and len(site.asked) == 2
    (entry,) = (tmp_path / "cache").glob("sha256-*")
    (entry / ADAPTER_FILES[1]).write_bytes(tensors(3))
    cached.fetch([f"{site.url}/a"], tmp_path / "again", digest)
    assert same(tmp_path / "again", adapter) and len(site.asked) == 4


def test_a_cache_that_cannot_be_used_is_no_fault(site: Site, adapter: Path, tmp_path: Path) -> None:
    publish(site, adapter)
    (tmp_path / "cache").touch()
    fetching(cache=Cache(tmp_path / "cache")).fetch([f"{site.url}/a"], tmp_path / "to")
    assert same(tmp_path / "to", adapter)
