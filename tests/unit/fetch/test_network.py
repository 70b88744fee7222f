"""Which hosts are asked: names are resolved, checked, and the checked address is the one that is connected to."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers.faulty_server import Fault, Site, serving
from helpers.fetched_adapters import write_adapter
from kaito_core.errors import FetchError, TransientFetchError
from kaito_core.fetch.network.rules import Rules, shown
from kaito_core.fetch.network.transport import is_bypassed
from unit.fetch.conftest import fetching, untouched


def rules(*addresses: str, **fields: object) -> Rules:
    return Rules(resolver=lambda host, port: addresses, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    [
        *(
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
        ),
        *(
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
            "::1",
            "::",
            "fe80::1%eth0",
            "fd00::1",
        ),
        # IPv4 addresses in the clothes of IPv6: mapped, NAT64, 6to4.
        *("::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2002:0a00:0001::1"),
    ],
)
def test_internal_addresses_are_refused(address: str) -> None:
    with pytest.raises(FetchError, match="is internal, and adapters are not fetched from there"):
        rules(address).addresses("models.example", 443)
    with pytest.raises(FetchError, match="is internal"):  # one bad address among good ones is enough
        rules("1.1.1.1", address).addresses("models.example", 443)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_asked(address: str) -> None:
    assert rules(address).addresses("models.example", 443) == [address]


@pytest.mark.parametrize(
    ("listed", "address", "allowed"),
    [
        ("registry.corp.example", "10.0.0.1", True),
        ("*.corp.example", "10.0.0.1", True),
        ("corp.example", "10.0.0.1", False),
        ("*", "10.0.0.1", True),
        ("10.0.0.0/8", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("192.168.0.0/16", "10.0.0.1", False),
        ("fd00::/8", "fd00::5", True),
        # A name that somebody else may point anywhere opens no metadata service; its address has to be listed itself.
        ("*", "169.254.169.254", False),
        ("registry.corp.example", "168.63.129.16", False),
        ("169.254.0.0/16", "169.254.169.254", True),
    ],
)
def test_private_hosts_are_asked_where_they_are_listed(listed: str, address: str, allowed: bool) -> None:
    asked = rules(address, private_hosts=(listed,))
    assert (asked.fault("registry.corp.example", address) == "") is allowed


def test_a_host_without_an_address_may_have_one_later() -> None:
    def nobody(host: str, port: int) -> Sequence[str]:
        raise OSError("Name or service not known")

    with pytest.raises(TransientFetchError, match=r"the host 'gone.example' has no address: Name or service not known"):
        Rules(resolver=nobody).addresses("gone.example", 443)


def test_the_checked_address_is_the_one_that_is_asked(site: Site, tmp_path: Path) -> None:
    """A name that answers otherwise at the second look-up (DNS rebinding) is not looked up a second time."""
    adapter = write_adapter(tmp_path / "adapter")
    site.files = {f"/a/{path.name}": path.read_bytes() for path in adapter.iterdir()}
    asked: list[str] = []

    def resolver(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"]

    fetching(resolver=resolver).fetch([f"http://models.invalid:{site.port}/a"], tmp_path / "to")
    assert asked == ["models.invalid"] * 2
    assert {headers["host"] for _, headers in site.asked} == {f"models.invalid:{site.port}"}


@pytest.mark.parametrize(
    "target", ["http://models.invalid:{port}", "http://127.0.0.2:{port}", "http://169.254.169.254"]
)
def test_redirects_are_checked_like_the_first_host(site: Site, tmp_path: Path, target: str) -> None:
    site.faults = [Fault(location=target.format(port=site.port) + "/a/adapter_config.json")]

    def resolver(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1" if host == "127.0.0.1" else "10.0.0.7" if host == "models.invalid" else host]

    with pytest.raises(FetchError, match=r"/a/adapter_config.json: the address .* is internal"):
        fetching(resolver=resolver).fetch([f"{site.url}/a"], tmp_path / "to")
    assert len(site.asked) == 1 and untouched(tmp_path / "to")


def test_redirects_are_followed_and_end(site: Site, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    site.files = {f"/b/{path.name}": path.read_bytes() for path in adapter.iterdir()}
    site.faults = [Fault(location="/b/adapter_config.json")]
    with pytest.raises(FetchError, match="404"):
        fetching().fetch([f"{site.url}/a"], tmp_path / "to")
    site.faults = [Fault(location="/a/adapter_config.json")] * 50
    with pytest.raises(FetchError, match="too many redirects"):
        fetching().fetch([f"{site.url}/a"], tmp_path / "to")


def test_plain_http_and_other_hosts_must_be_allowed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"must be https; KAITO_FETCH_HTTP=true allows http"):
        fetching(fetch_http=False).fetch([f"{site.url}/a"], tmp_path / "to")
    with pytest.raises(FetchError, match=r"the host '127.0.0.1' is not in KAITO_FETCH_HOSTS \(\*.corp.example\)"):
        fetching(fetch_hosts=("*.corp.example",)).fetch([f"{site.url}/a"], tmp_path / "to")
    assert site.asked == []


def test_a_proxy_is_used_and_may_be_bypassed(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = write_adapter(tmp_path / "adapter")
    files = {path.name: path.read_bytes() for path in adapter.iterdir()}
    with serving() as proxy:
        proxy.files = {f"/a/{name}": content for name, content in files.items()}
        monkeypatch.setenv("http_proxy", f"http://user:s3cret@127.0.0.1:{proxy.port}")
        # The proxy resolves the name; nobody here can.
        fetching().fetch(["http://models.invalid/a"], tmp_path / "to")
        assert proxy.asked[0][0] == "http://models.invalid/a/adapter_config.json"
        assert "proxy-authorization" in proxy.asked[0][1]
        with pytest.raises(FetchError, match="is internal"):
            fetching().fetch(["http://169.254.169.254/a"], tmp_path / "other")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        site.files = {f"/a/{name}": content for name, content in files.items()}
        fetching().fetch([f"{site.url}/a"], tmp_path / "direct")
        assert len(proxy.asked) == 2 and len(site.asked) == 2


@pytest.mark.parametrize(
    ("host", "no_proxy", "bypassed"),
    [
        ("a.example", "", False),
        ("a.example", "*", True),
        ("a.example", "b.example, example", True),
        ("a.example", ".example", True),
        ("a.example", "*.example", True),
        ("aexample", "example", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("a.example", "10.0.0.0/8,a.example:443", True),
        ("::1", "::1", True),
    ],
)
def test_no_proxy(host: str, no_proxy: str, bypassed: bool) -> None:
    assert is_bypassed(host, no_proxy) is bypassed


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("https://u:s3cret@h.example:8443/a?sig=s3cret#s3cret", "https://h.example:8443/a"),
        ("https://[2606::1]/a?s3cret", "https://[2606::1]/a"),
        ("https://h.example:s3cret@x:y/a", "x:y/a"),
        ("hf://o/n@main/folder", "hf://o/n@main/folder"),
        ("s3://bucket/key?versionId=s3cret", "s3://bucket/key"),
        ("/srv/a?b", "/srv/a?b"),
    ],
)
def test_no_secret_is_shown(uri: str, words: str) -> None:
    assert shown(uri) == words


def test_a_slow_server_is_no_end(site: Site, tmp_path: Path) -> None:
    """Tries that bring something do not count as failures in a row."""
    adapter = write_adapter(tmp_path / "adapter", 20_000)
    site.files = {f"/a/{path.name}": path.read_bytes() for path in adapter.iterdir()}
    site.faults = [Fault(), *[Fault(cut=1000)] * 15]
    fetching(tries=2).fetch([f"{site.url}/a"], tmp_path / "to")
    assert threading.active_count() < 50 and len(site.asked) == 17
