"""The cluster as plugins see it: a few verbs on plain objects. The client that implements them is in `controller/`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["NODES", "Cluster", "KubeObject", "ResourceType"]

KubeObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResourceType:
    """A kind of object.

    Attributes:
        group: API group, "" for the core group.
        version: API version.
        plural: Plural name in URLs.
        kind: Kind in manifests.
        namespaced: Whether objects live in namespaces.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """apiVersion of manifests."""
        return f"{self.group}/{self.version}" if self.group else self.version


NODES = ResourceType("", "v1", "nodes", "Node", namespaced=False)


class Cluster(Protocol):
    """Reads from the watch cache of a type where there is one, and writes to the API.

    Every method raises `ClusterError` where the API returns an error, except as stated.
    """

    async def get(self, resource: ResourceType, name: str, namespace: str = "") -> KubeObject | None:
        """Returns an object, or None where it or its type does not exist."""

    async def list(
        self, resource: ResourceType, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[KubeObject]:
        """Returns the objects with all the labels, of all namespaces for ""; none where the type does not exist."""

    async def apply(self, manifest: KubeObject) -> KubeObject:
        """Applies a manifest on the server as the field manager `kaito`, and returns the object."""

    async def delete(self, resource: ResourceType, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """Deletes an object, only the one with `uid` if given; returns False where it or its type does not exist."""
