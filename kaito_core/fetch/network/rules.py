"""Which hosts and addresses may be asked: users choose URLs, and the requests come from inside the cluster.

Pure, apart from the resolver that is passed in.
"""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from kaito_core.api.fetching.hosts import Address, lists_address, matches_host
from kaito_core.errors import FetchError, TransientFetchError

__all__ = ["Resolver", "Rules", "resolve_host", "shown"]

#: Returns the addresses of a host, as texts.
Resolver = Callable[[str, int], Sequence[str]]

#: Public by their range, and yet answered by the cloud's own platform, with secrets of the machine that asks.
_METADATA = tuple(map(ipaddress.ip_address, ("168.63.129.16", "100.100.100.200", "fd00:ec2::254", "169.254.169.254")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def resolve_host(host: str, port: int) -> list[str]:
    """Returns the addresses of a host, in the system's order.

    Raises:
        OSError, UnicodeError: It has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings allow.

    Attributes:
        http: Whether plain http is allowed.
        hosts: Hosts that may be asked, "*.example" for all below one; empty: all.
        private_hosts: Hosts that may have addresses that are not public; networks and addresses name these themselves.
        resolver: Finds addresses.
    """

    http: bool = False
    hosts: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    resolver: Resolver = resolve_host

    def check_url(self, url: str) -> SplitResult:
        """Returns the parts of a URL whose scheme and host are allowed; addresses are checked by `addresses`.

        Raises:
            FetchError: They are not.
        """
        try:
            parts = urlsplit(url)
            host, _ = (parts.hostname or "").rstrip("."), parts.port
        except ValueError as error:
            raise FetchError(f"a source is not a URL: {error}") from error
        if parts.scheme == "http" and not self.http:
            raise FetchError(f"{shown(url)} must be https; KAITO_FETCH_HTTP=true allows http")
        if parts.scheme not in ("https", "http") or not host:
            raise FetchError(f"{shown(url)} must be an https URL with a host")
        if self.hosts and not matches_host(host, self.hosts):
            raise FetchError(f"{shown(url)}: the host '{host}' is not in KAITO_FETCH_HOSTS ({', '.join(self.hosts)})")
        return parts

    def addresses(self, host: str, port: int) -> list[str]:
        """Returns the addresses of a host, all of which are allowed: to ask it means to ask one of these.

        Raises:
            FetchError: One is not allowed.
            TransientFetchError: The host has none at present.
        """
        try:
            found = self.resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise TransientFetchError(f"the host '{host}' has no address: {error}") from error
        for text in found:
            if fault := self.fault(host, text):
                raise FetchError(fault)
        return list(found)

    def fault(self, host: str, text: str) -> str:
        """Returns why an address of a host is not asked, "" if it is."""
        address = _real(ipaddress.ip_address(text.partition("%")[0]))
        if _is_public(address) or lists_address(address, self.private_hosts):
            return ""
        reserved = address in _METADATA or address.is_link_local or address.is_multicast or address.is_unspecified
        if not reserved and matches_host(host, self.private_hosts):
            return ""
        of = "" if text == host else f" of '{host}'"
        remedy = "the address itself" if reserved else "the host"
        return (
            f"the address {text}{of} is internal, and adapters are not fetched from there; if that is meant, list "
            f"{remedy} in KAITO_FETCH_PRIVATE_HOSTS"
        )


def shown(uri: str) -> str:
    """Returns a source without the parts that may be secret: user, password, query."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return uri.partition("?")[0].rpartition("@")[2]
    if not parts.scheme or not parts.netloc:
        return uri
    host = f"[{host}]" if ":" in host else host
    if parts.scheme not in ("https", "http"):  # a revision may stand behind an "@" of the path, and a user in no other
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return parts._replace(netloc=f"{host}:{port}" if port else host, query="", fragment="").geturl()


def _real(address: Address) -> Address:
    """Returns the IPv4 address that an IPv6 one stands for, if it stands for one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        teredo = address.teredo
        return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)
    return address


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and address not in _METADATA
