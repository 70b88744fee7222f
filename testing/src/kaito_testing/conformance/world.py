"""World: the cluster of the provider suite. A `MemoryCluster` that can be looked at, changed, and made to fail."""

import copy
from collections.abc import Iterable

from kaito_core.api.cluster import KubeObject, ResourceType
from kaito_core.errors import ClusterError
from kaito_testing.world.memory_cluster import MemoryCluster

__all__ = ["Objects", "World"]

#: Objects by (apiVersion, kind, namespace, name).
Objects = dict[tuple[str, str, str, str], KubeObject]


class World(MemoryCluster):
    """A cluster in memory, with what the world around a provider does to it.

    Attributes:
        interrupted: Whether the failure that `interrupt` asked for has happened.
    """

    def __init__(self, objects: Iterable[KubeObject] = (), *, absent: Iterable[ResourceType] = ()) -> None:
        """Starts with copies of `objects`; resource types in `absent` are unknown to the API."""
        super().__init__(objects, absent=absent)
        self.interrupted = False
        self._writes = 0
        self._interruption: tuple[int, bool] | None = None

    def snapshot(self) -> Objects:
        """Returns copies of all objects."""
        return copy.deepcopy(self._objects)

    def put(self, manifest: KubeObject) -> None:
        """Makes or changes an object as somebody else would; it is not in `calls`."""
        self._store(manifest)

    def remove(self, key: tuple[str, str, str, str]) -> None:
        """Takes an object away at once, as somebody else would; it is not in `calls`."""
        self._objects.pop(key, None)

    def interrupt(self, write: int, *, applied: bool) -> None:
        """Fails one write from now on, as a cut connection does.

        Args:
            write: Which one, counted from 1.
            applied: Whether it takes effect all the same: then only the answer is lost.
        """
        self._writes, self.interrupted, self._interruption = 0, False, (write, applied)

    async def apply(self, manifest: KubeObject) -> KubeObject:
        """As in `MemoryCluster`, unless it is interrupted."""
        self._writes += 1
        self._fail(applied=False)
        stored = await super().apply(manifest)
        self._fail(applied=True)
        return stored

    async def delete(self, resource: ResourceType, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """As in `MemoryCluster`, unless it is interrupted."""
        self._writes += 1
        self._fail(applied=False)
        found = await super().delete(resource, name, namespace, uid=uid)
        self._fail(applied=True)
        return found

    def _fail(self, *, applied: bool) -> None:
        if self._interruption == (self._writes, applied):
            self.interrupted = True
            raise ClusterError("connection reset by the conformance suite", status=0)
