"""The cluster as plugins see it: a handful of verbs on plain objects. The client behind it is `controller/`'s."""

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
        """What manifests write as apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version


NODES = ResourceType("", "v1", "nodes", "Node", namespaced=False)


class Cluster(Protocol):
    """Reads from watch caches where there is one, writes straight to the API.

    Every method raises `ClusterError` where the API answers with an error, except as stated.
    """

    async def get(self, resource: ResourceType, name: str, namespace: str = "") -> KubeObject | None:
        """Returns an object, or None where it or its resource type is absent."""

    async def list(
        self, resource: ResourceType, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[KubeObject]:
        """Returns the objects with all the labels, of all namespaces where none is named; none for an absent type."""

    async def apply(self, manifest: KubeObject) -> KubeObject:
        """Applies a manifest on the server, as the field manager `kaito`, and returns the object."""

    async def delete(self, resource: ResourceType, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """Deletes an object, only the one with `uid` where given; False where it or its type was absent already."""
