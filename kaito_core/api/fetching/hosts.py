"""Lists of hosts in settings: names, names with all below them, addresses and networks."""

import ipaddress
from collections.abc import Sequence

__all__ = ["Address", "lists_address", "matches_host"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def matches_host(host: str, patterns: Sequence[str]) -> bool:
    """Returns whether a host is one of some names; "*.a.example" stands for all names below, "*" for all."""
    name = _bare(host)
    return any(
        wanted in ("*", name) or (wanted.startswith("*.") and name.endswith(wanted[1:]))
        for wanted in map(_bare, patterns)
    )


def lists_address(address: Address, entries: Sequence[str]) -> bool:
    """Returns whether an address is one of some addresses and networks; names among them are passed over."""
    for entry in entries:
        try:
            network = ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            continue
        if address.version == network.version and address in network:
            return True
    return False


def _bare(host: str) -> str:
    return host.lower().rstrip(".").strip("[]")
