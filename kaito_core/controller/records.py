"""The types that the operator's rooms pass to one another: what is watched, what changed, what was written.

Data only. The cache is in `watch/cache`, the client in `cluster`.
"""

from dataclasses import dataclass

from kaito_core.api import KubeObject, ResourceType

__all__ = ["Change", "Connection", "Key", "Listing", "Watched", "Write"]

Key = tuple[str, str]  #: namespace and name of a Workspace


@dataclass(frozen=True, slots=True)
class Watched:
    """A resource type that is watched.

    Attributes:
        resource: The type.
        labelled: Whether only objects whose labels name a Workspace are watched.
    """

    resource: ResourceType
    labelled: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one object. `old` is None for a new object, `new` for a deleted one."""

    resource: ResourceType
    old: KubeObject | None
    new: KubeObject | None


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the Kubernetes API is and how to log in, for clients other than ours.

    Attributes:
        server: URL.
        token: Bearer token, "" for none.
        ca_file: Path of the authority's certificate, None for the system's.
        certificate_file: Path of the client certificate, None for none.
        key_file: Path of its key.
        insecure: Whether the server's certificate is not checked.
        proxy: URL of the proxy, None for none.
    """

    server: str
    token: str
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    insecure: bool
    proxy: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects of a resource type at one time, and the resource version of that time; 0 for an absent type."""

    items: tuple[KubeObject, ...]
    version: int


@dataclass(frozen=True, slots=True)
class Write:
    """One attempt to write to the API.

    Attributes:
        verb: As in RBAC rules, such as "patch".
        resource: What was written.
        subresource: Such as "status", "" for the object itself.
        status: HTTP status, 0 for no answer.
    """

    verb: str
    resource: ResourceType
    subresource: str
    status: int
