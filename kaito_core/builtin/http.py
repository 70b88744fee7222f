"""Adapters behind URLs: one archive, or the adapter's files one by one. `kaito-fetch` downloads them.

Users choose the URL, and the request comes from inside the cluster: addresses of the cluster and of machines' metadata
are refused. Names are resolved in the pod, to the address that is then asked: here they may have others.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from kaito_core.api.adapter import AdapterRef, FetchStep, fetch_step
from kaito_core.api.fetching.hosts import lists_address, matches_host
from kaito_core.errors import FieldError
from kaito_core.settings import Settings

__all__ = ["HttpSource", "url_fault"]

_SCHEMES = ("https", "http")
_FILES = ("/adapter_config.json", "/adapter_model.safetensors")
_INTERNAL_NAMES = ("localhost", "metadata", "metadata.google", "metadata.google.internal", "instance-data.ec2.internal")
#: Azure's platform endpoint, a public address that answers each virtual machine with its own data.
_INTERNAL_ADDRESSES = (ipaddress.ip_address("168.63.129.16"),)
#: What C libraries read as an IPv4 address: 127.1, 2130706433, 0x7f.0.0.1, 0177.0.0.1.
_LENIENT_IPV4 = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+)){0,3}")


class HttpSource:
    """Downloads from web servers.

    Args:
        settings: Whether plain http is allowed, and which hosts.
    """

    name = "http"
    schemes = _SCHEMES

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        """Returns a fault for each URL that cannot be used."""
        base, urls = ref.field.removesuffix("[0]"), ref.location.split()
        for index, url in enumerate(urls):
            private = self._settings.fetch_private_hosts if self._settings else ()
            fault = url_fault(url, private) or self._refusal(url)
            if not fault and len(urls) > 1 and not urlsplit(url).path.endswith(_FILES):
                fault = f"must end in {' or '.join(_FILES)} where there are several URLs, got '{url}'"
            if fault:
                yield FieldError(f"{base}[{index}]" if base != ref.field else ref.field, fault)

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        """Returns the step that downloads into `target`."""
        return fetch_step(ref, target, *ref.location.split())

    def _refusal(self, url: str) -> str:
        if self._settings is None:
            return ""
        parts, settings = urlsplit(url), self._settings
        shown = parts._replace(query="", fragment="").geturl()
        if parts.scheme == "http" and not settings.fetch_http:
            return f"must be https, got '{shown}'; KAITO_FETCH_HTTP=true of the operator allows http"
        if settings.fetch_hosts and not matches_host(parts.hostname or "", settings.fetch_hosts):
            allowed = ", ".join(settings.fetch_hosts)
            return f"must have an allowed host (KAITO_FETCH_HOSTS of the operator: {allowed}), got '{parts.hostname}'"
        return ""


def url_fault(url: str, private_hosts: Sequence[str] = ()) -> str:
    """Returns why a URL cannot be downloaded from inside a cluster, "" if it can.

    Args:
        url: The URL.
        private_hosts: Hosts, addresses and networks that are asked although they are internal.
    """
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").rstrip("."), parts.port  # reading the port raises where it is not a number
    except ValueError as error:
        return f"must be a URL, got '{url}': {error}"
    if parts.scheme not in _SCHEMES or not host:
        return f"must be an https or http URL with a host, got '{url}'"
    if parts.username is not None or parts.password is not None:
        return f"must not contain a user name or password: anybody who may read pods could see them (host '{host}')"
    if _is_internal(host) and not _is_meant(host, private_hosts):
        return (
            f"must not point into the cluster's own network, got the host '{host}'; list it in "
            "KAITO_FETCH_PRIVATE_HOSTS of the operator, or use a volumeSource"
        )
    return ""


def _is_meant(host: str, private_hosts: Sequence[str]) -> bool:
    address = _address(host)
    return lists_address(address, private_hosts) if address is not None else matches_host(host, private_hosts)


def _is_internal(host: str) -> bool:
    if host in _INTERNAL_NAMES or host.endswith(".localhost"):
        return True
    address = _address(host)
    if address is None:
        return False
    return not address.is_global or address.is_multicast or address in _INTERNAL_ADDRESSES


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Returns the address that a host is written as, None for a name."""
    if _LENIENT_IPV4.fullmatch(host):
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
