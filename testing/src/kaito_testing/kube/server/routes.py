"""The paths of the Kubernetes API."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Route", "parse"]


@dataclass(frozen=True, slots=True)
class Route:
    """What a path of objects names: /api/VERSION/... or /apis/GROUP/VERSION/...; "" for what it does not name."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse(path: str) -> Route | None:
    """The route of a path, None for a path that is not of objects (discovery, health)."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    # /namespaces/NAME and its subresources are the namespace itself; what is below is in the namespace.
    if rest[0] == "namespaces" and len(rest) >= 3 and not (group == "" and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3 or not all(rest):
        return None
    return Route(group, version, rest[0], namespace, *rest[1:])
