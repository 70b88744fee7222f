"""Adapters behind URLs: one archive, or the adapter's files one by one. The runtime downloads them.

Users choose the URL, and the request comes from inside the cluster: addresses of the cluster and of machines' metadata
are refused. Names are not resolved here, since the operator may resolve them to other addresses than the pod.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from kaito_core.api.adapter import AdapterRef, FetchStep
from kaito_core.builtin.commands import runtime_fetch
from kaito_core.errors import FieldError

__all__ = ["HttpSource", "url_fault"]

_SCHEMES = ("https", "http")
_FILES = ("/adapter_config.json", "/adapter_model.safetensors")
_INTERNAL_NAMES = ("localhost", "metadata", "metadata.google", "metadata.google.internal", "instance-data.ec2.internal")
#: Azure's platform endpoint, a public address that answers each virtual machine with its own data.
_INTERNAL_ADDRESSES = (ipaddress.ip_address("168.63.129.16"),)
#: What C libraries read as an IPv4 address: 127.1, 2130706433, 0x7f.0.0.1, 0177.0.0.1.
_LENIENT_IPV4 = re.compile(r"(?:0x[0-9a-f]*|\d+)(?:\.(?:0x[0-9a-f]*|\d+)){0,3}")


class HttpSource:
    """Downloads from web servers with the runtime's image."""

    name = "http"
    schemes = _SCHEMES

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        """Returns a fault for each URL that cannot be used."""
        base, urls = ref.field.removesuffix("[0]"), ref.location.split()
        for index, url in enumerate(urls):
            fault = url_fault(url)
            if not fault and len(urls) > 1 and not urlsplit(url).path.endswith(_FILES):
                fault = f"must end in {' or '.join(_FILES)} where there are several URLs, got '{url}'"
            if fault:
                yield FieldError(f"{base}[{index}]" if base != ref.field else ref.field, fault)

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        """Returns the step that downloads into `target`."""
        return FetchStep(command=runtime_fetch(ref.location.split(), target, ref.digest))


def url_fault(url: str) -> str:
    """Returns why a URL cannot be downloaded from inside a cluster, "" if it can."""
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").rstrip("."), parts.port  # reading the port raises where it is not a number
    except ValueError as error:
        return f"must be a URL, got '{url}': {error}"
    if parts.scheme not in _SCHEMES or not host:
        return f"must be an https or http URL with a host, got '{url}'"
    if parts.username is not None or parts.password is not None:
        return f"must not contain a user name or password: anybody who may read pods could see them (host '{host}')"
    if _is_internal(host):
        return (
            f"must not point into the cluster's own network, got the host '{host}'; give a server there a DNS name, "
            "or use a volumeSource"
        )
    return ""


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
