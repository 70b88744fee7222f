"""World: the cluster and the cloud of the provider suite. Both can be looked at, changed, and made to fail."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kaito_core.api.cluster import KubeObject, ResourceType
from kaito_core.errors import ClusterError
from kaito_testing.world.memory_cluster import MemoryCluster

__all__ = ["Objects", "World"]

#: Objects by (apiVersion, kind, namespace, name).
Objects = dict[tuple[str, str, str, str], KubeObject]


class World(MemoryCluster):
    """A cluster in memory, and a cloud that has an API of its own.

    A provider that asks its cloud through Kubernetes objects (NodeClaims, Machines) needs the cluster alone. Another
    provider's test keeps the state of its cloud in `cloud`, and wraps each call of the cloud's API in `cloud_call`.

    Attributes:
        cloud: What the cloud has, by a name that is unique in it, e.g. the machines.
        notes: What the provider noted last, by Workspace; an operator keeps it in the Workspace's status.
        interrupted: Whether the failure that `interrupt` asked for has happened.
    """

    def __init__(self, objects: Iterable[KubeObject] = (), *, absent: Iterable[ResourceType] = ()) -> None:
        """Starts with copies of `objects`; resource types in `absent` are unknown to the API."""
        super().__init__(objects, absent=absent)
        self.cloud: dict[str, Any] = {}
        self.notes: dict[str, Mapping[str, str]] = {}
        self.interrupted = False
        self._changes = 0
        self._interruption: tuple[int, bool] | None = None

    def snapshot(self) -> Objects:
        """Returns copies of all objects of the cluster."""
        return copy.deepcopy(self._objects)

    def put(self, manifest: KubeObject) -> None:
        """Makes or changes an object as another client would; it is not in `calls`."""
        self._store(manifest)

    def remove(self, key: tuple[str, str, str, str]) -> None:
        """Removes an object at once, as another client would; it is not in `calls`."""
        self._objects.pop(key, None)

    def interrupt(self, change: int, *, applied: bool) -> None:
        """Breaks the connection at one write to the cluster or call of the cloud.

        Args:
            change: Which one from now on, counted from 1.
            applied: Whether it takes effect all the same, and only the answer is lost.
        """
        self._changes, self.interrupted, self._interruption = 0, False, (change, applied)

    @contextmanager
    def cloud_call(self, name: str) -> Iterator[None]:
        """Counts the block as one call of the cloud's API, which `interrupt` can break and `calls` shows.

        Args:
            name: The call, e.g. "create" or "delete". Calls that change nothing need no block.

        Raises:
            ConnectionResetError: The call is interrupted. A client of the cloud's API would raise an error of its own:
                catch this one where the test plays that client, and raise the other.
        """
        with self._change(ConnectionResetError("connection reset by the conformance suite")):
            self.calls.append((name, "", ""))
            yield

    async def apply(self, manifest: KubeObject) -> KubeObject:
        """As in `MemoryCluster`, unless it is interrupted."""
        with self._change(_cut()):
            return await super().apply(manifest)

    async def delete(self, resource: ResourceType, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """As in `MemoryCluster`, unless it is interrupted."""
        with self._change(_cut()):
            return await super().delete(resource, name, namespace, uid=uid)

    @contextmanager
    def _change(self, error: Exception) -> Iterator[None]:
        self._changes += 1
        change = self._changes
        if self._interruption == (change, False):
            self.interrupted = True
            raise error
        yield
        if self._interruption == (change, True):
            self.interrupted = True
            raise error


def _cut() -> ClusterError:
    return ClusterError("connection reset by the conformance suite", status=0)
