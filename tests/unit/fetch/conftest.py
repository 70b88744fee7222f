"""What tests of fetches share: a server that misbehaves as told, and a fetch that does not wait."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from helpers.faulty_server import Site, serving
from kaito_core.fetch.access import ProcessAccess, rules_of
from kaito_core.fetch.adapter import AdapterFetch
from kaito_core.fetch.download import Patience
from kaito_core.fetch.fetchers import Fetchers
from kaito_core.fetch.network.rules import resolve_host
from kaito_core.fetch.progress import LogProgress
from kaito_core.settings import Settings

#: A test's server is on this machine, and speaks http.
LOCAL = {"fetch_http": True, "fetch_private_hosts": ("127.0.0.1",)}

Fetching = Callable[..., AdapterFetch]


def fetching(
    environ: Mapping[str, str] | None = None,
    *,
    tries: int = 3,
    most: int = 1 << 24,
    resolver: Any = resolve_host,
    said: list[str] | None = None,
    cache: Any = None,
    **settings: Any,
) -> AdapterFetch:
    """Returns a fetch that may ask this machine and does not wait between tries."""
    read = Settings(**{**LOCAL, **settings})
    return AdapterFetch(
        Fetchers(read, entries=()),
        ProcessAccess(dict(environ or {}), rules_of(read, resolver)),
        most,
        cache=cache,
        patience=Patience(tries=tries, sleep=lambda seconds: None),
        progress=LogProgress((lambda line: None) if said is None else said.append),
    )


def untouched(to: Path) -> bool:
    """Returns whether neither the folder nor anything of the fetch beside it is there."""
    return not to.exists() and not [path for path in to.parent.iterdir() if path.name.startswith(f".{to.name}")]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web server on this machine."""
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with serving() as served:
        yield served
