"""The HTTP client of fetches: each request goes to an address that was checked, redirects included.

A name is resolved once and the connection made to that address, with the name kept for Host and TLS. So no second
look-up can answer otherwise (DNS rebinding). Behind a proxy the proxy resolves names; then they are checked where they
can be resolved here.
"""

import ipaddress
from collections.abc import Mapping
from urllib.request import getproxies

import httpx

from kaito_core.api.fetching.hosts import matches_host
from kaito_core.errors import FetchError, TransientFetchError
from kaito_core.fetch.network.rules import Rules

__all__ = ["fetch_client", "is_bypassed"]

_TIMEOUT = httpx.Timeout(60.0, connect=15.0)
_MOST_REDIRECTS = 10


def fetch_client(rules: Rules, proxies: Mapping[str, str] | None = None) -> httpx.Client:
    """Returns a client; its requests raise FetchError where `rules` do not allow a host.

    Args:
        rules: What is allowed.
        proxies: Proxies by scheme, with "no" for the hosts to ask without one; None: those of the environment.
    """
    return httpx.Client(
        transport=_Guarded(rules, getproxies() if proxies is None else proxies),
        timeout=_TIMEOUT,
        follow_redirects=True,
        max_redirects=_MOST_REDIRECTS,
        # What a server compresses on the way cannot be resumed, and could be a bomb.
        headers={"Accept-Encoding": "identity", "User-Agent": "kaito-fetch"},
        trust_env=False,  # no ~/.netrc: credentials come from the adapter's Secret alone
    )


def is_bypassed(host: str, no_proxy: str) -> bool:
    """Returns whether NO_PROXY lists a host: names with all below them, addresses, networks, or "*"."""
    name = host.lower().rstrip(".").strip("[]")
    for entry in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        bare = entry.rpartition(":")[0] if entry.count(":") == 1 else entry
        bare = bare.removeprefix("*").lstrip(".") if bare != "*" else bare
        if bare == "*" or name == bare or name.endswith(f".{bare}"):
            return True
        try:
            if ipaddress.ip_address(name) in ipaddress.ip_network(bare, strict=False):
                return True
        except (ValueError, TypeError):
            continue
    return False


class _Guarded(httpx.BaseTransport):
    def __init__(self, rules: Rules, proxies: Mapping[str, str]) -> None:
        self._rules = rules
        self._proxies = proxies
        self._made: dict[str, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._rules.check_url(str(request.url))
        host, scheme = request.url.host, request.url.scheme
        port = request.url.port or (443 if scheme == "https" else 80)
        proxy = self._proxies.get(scheme) or self._proxies.get("all") or ""
        if proxy and not is_bypassed(host, self._proxies.get("no", "")):
            self._check_proxied(host, port)
            return self._transport(proxy).handle_request(request)
        last: Exception | None = None
        for address in self._rules.addresses(host, port):
            try:
                return self._transport("").handle_request(_pinned(request, address))
            except httpx.ConnectError as error:  # the next address may answer
                last = error
        raise last or TransientFetchError(f"the host '{host}' has no address")

    def close(self) -> None:
        for transport in self._made.values():
            transport.close()

    def _transport(self, proxy: str) -> httpx.HTTPTransport:
        if proxy not in self._made:
            # SSL_CERT_FILE and SSL_CERT_DIR are read here.
            self._made[proxy] = httpx.HTTPTransport(proxy=proxy or None)
        return self._made[proxy]

    def _check_proxied(self, host: str, port: int) -> None:
        try:
            self._rules.addresses(host, port)
        except TransientFetchError:
            if matches_host(host, ("localhost", "*.localhost", "metadata", "metadata.google.internal")):
                raise FetchError(f"the host '{host}' is internal, and adapters are not fetched from there") from None


def _pinned(request: httpx.Request, address: str) -> httpx.Request:
    """Returns a request to one address; Host stands in its headers already, and TLS is told the name."""
    name = request.url.host
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": name},
    )
