"""MemoryCluster: the `Cluster` protocol over a dictionary, for tests of providers.

It has no admission, no watches and no field ownership; `FakeCluster` has them.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kaito_core.api.cluster import KubeObject, ResourceType
from kaito_core.errors import ClusterError

__all__ = ["MemoryCluster"]

_Key = tuple[str, str, str, str]


class MemoryCluster:
    """Objects in memory.

    Example:
        cluster = MemoryCluster([{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-1"}}])
        state = await provider.ensure(request, cluster)
        assert cluster.calls == []          # nothing was written

    Attributes:
        calls: The writes as (verb, kind, name), in order, without deletions of absent objects.
    """

    def __init__(self, objects: Iterable[KubeObject] = (), *, absent: Iterable[ResourceType] = ()) -> None:
        """Starts with copies of `objects`; resource types in `absent` are unknown to the API."""
        self.calls: list[tuple[str, str, str]] = []
        self._absent = {(resource.api_version, resource.kind) for resource in absent}
        self._objects: dict[_Key, KubeObject] = {}
        self._serial = 0
        for manifest in objects:
            self._store(manifest)

    async def get(self, resource: ResourceType, name: str, namespace: str = "") -> KubeObject | None:
        """Returns a copy of an object, or None."""
        found = self._objects.get((resource.api_version, resource.kind, namespace, name))
        return copy.deepcopy(found)

    async def list(
        self, resource: ResourceType, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[KubeObject]:
        """Returns copies of the objects with all the labels, in the order they were made."""
        return [
            copy.deepcopy(found)
            for (api_version, kind, where, _), found in self._objects.items()
            if (api_version, kind) == (resource.api_version, resource.kind)
            and namespace in ("", where)
            and (labels or {}).items() <= found["metadata"].get("labels", {}).items()
        ]

    async def apply(self, manifest: KubeObject) -> KubeObject:
        """Stores a manifest; the object keeps its uid, finalizers and status.

        Raises:
            ClusterError: Its type does not exist (status 404).
        """
        if (manifest["apiVersion"], manifest["kind"]) in self._absent:
            raise ClusterError(
                f"the server has no resource type {manifest['kind']} in {manifest['apiVersion']}",
                status=404,
                api_reason="NotFound",
            )
        self.calls.append(("apply", manifest["kind"], manifest["metadata"]["name"]))
        return copy.deepcopy(self._store(manifest))

    async def delete(self, resource: ResourceType, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """Removes an object, or marks it as being deleted if it has finalizers.

        Raises:
            ClusterError: It has another uid than `uid` (status 409).
        """
        key = (resource.api_version, resource.kind, namespace, name)
        found = self._objects.get(key)
        if found is None:
            return False
        metadata = found["metadata"]
        if uid and metadata["uid"] != uid:
            raise ClusterError(f"{resource.kind} {name} has another uid", status=409, api_reason="Conflict")
        self.calls.append(("delete", resource.kind, name))
        if metadata.get("finalizers"):
            metadata["deletionTimestamp"] = "2024-01-01T00:00:00Z"
        else:
            del self._objects[key]
        return True

    def patch_status(self, resource: ResourceType, name: str, status: Mapping[str, Any], namespace: str = "") -> None:
        """Sets the status of an object, as its controller would."""
        self._objects[(resource.api_version, resource.kind, namespace, name)]["status"] = dict(status)

    def finish_deletions(self) -> None:
        """Removes all objects that are being deleted, as if their finalizers were taken off."""
        self._objects = {
            key: found for key, found in self._objects.items() if "deletionTimestamp" not in found["metadata"]
        }

    def _store(self, manifest: KubeObject) -> KubeObject:
        stored = copy.deepcopy(manifest)
        metadata = stored["metadata"]
        key = (stored["apiVersion"], stored["kind"], metadata.get("namespace", ""), metadata["name"])
        before = self._objects.get(key)
        if before is None:
            self._serial += 1
            metadata.setdefault("uid", f"uid-{self._serial}")
        else:
            for field in ("uid", "finalizers", "deletionTimestamp"):
                if field in before["metadata"]:
                    metadata.setdefault(field, before["metadata"][field])
            if "status" in before:
                stored.setdefault("status", before["status"])
        self._objects[key] = stored
        return stored
