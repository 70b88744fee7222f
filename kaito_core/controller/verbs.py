"""The verbs on objects of the Kubernetes API, with reads answered from the watch caches where these are complete.

How a call is sent is in `cluster`; what is written and when is decided elsewhere.
"""

import asyncio
import builtins
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workload import MANAGER
from kaito_core.controller.api_calls import (
    APPLY,
    JSON_PATCH,
    MERGE,
    STRATEGIC,
    Call,
    Response,
    exchange,
    identity,
    object_path,
)
from kaito_core.controller.records import Change, Listing, Write
from kaito_core.controller.watch.cache import Cache
from kaito_core.errors import ClusterError

__all__ = ["Verbs"]

log = logging.getLogger(__name__)

_PAGE = 500  # objects in an answer to a list
_PROBE_SECONDS = 3.0


class Verbs:
    """Implements `kaito_core.api.Cluster`, and the verbs that only the operator needs.

    Args:
        send: Sends a call once.
        cache: Answers reads where it is complete.
        types: Types whose manifests can be applied without asking the API for their plural.

    Attributes:
        on_change: Called where the answer to a write contains a change that somebody else made.
        on_write: Called after each attempt to write, including those to the Lease and repeated ones.
        may_write: Asked before each write except those to the Lease: an operator that lost the lead must not write.
    """

    def __init__(
        self, send: Callable[[Call], Awaitable[Response]], cache: Cache, types: Iterable[ResourceType] = ()
    ) -> None:
        self.cache = cache
        self.on_change: Callable[[Change], None] = lambda change: None
        self.on_write: Callable[[Write], None] = lambda write: None
        self.may_write: Callable[[], bool] = lambda: True
        self._send = send
        self._types = {(resource.api_version, resource.kind): resource for resource in types}

    async def get(self, resource: ResourceType, name: str, namespace: str = "") -> KubeObject | None:
        """Returns an object, None where it or its resource type is absent."""
        cached = self.cache.get(resource, name, namespace)
        if cached is not None or self.cache.is_complete(resource):
            return cached
        try:
            return await self._read(object_path(resource, namespace, name))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, resource: ResourceType, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[KubeObject]:
        """Returns the objects with all the labels; none for an absent resource type."""
        if self.cache.answers(resource, labels):
            return self.cache.list(resource, namespace, labels)
        selector = ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))
        return (await self.fetch(resource, namespace, selector)).items

    async def fetch(
        self, resource: ResourceType, namespace: str = "", selector: str = "", *, fields: str = ""
    ) -> Listing:
        """Returns the objects that both selectors match, from the API itself; none for an absent resource type.

        Args:
            resource: Their type.
            namespace: Their namespace, "" for all.
            selector: Label selector.
            fields: Field selector.
        """
        items: builtins.list[KubeObject] = []
        selectors = {"labelSelector": selector, "fieldSelector": fields}
        query = {"limit": str(_PAGE), **{key: value for key, value in selectors.items() if value}}
        while True:
            try:
                page = await self._read(object_path(resource, namespace), query)
            except ClusterError as error:
                if error.status == 404:
                    return Listing((), 0)
                raise
            # The items of a list leave out what the list states once.
            items += [{"apiVersion": resource.api_version, "kind": resource.kind, **item} for item in page["items"]]
            metadata = page.get("metadata", {})
            if not metadata.get("continue"):
                version = str(metadata.get("resourceVersion", ""))
                return Listing(tuple(items), int(version) if version.isdigit() else 0)
            query = {**query, "continue": metadata["continue"]}

    async def why_silent(self) -> str:
        """Returns why the API cannot be reached, "" where it answers."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._read("/version")
        except TimeoutError:
            return f"no answer within {_PROBE_SECONDS:g} seconds"
        except ClusterError as error:
            return str(error) if error.status in (0, 401) or error.status >= 500 else ""
        return ""

    async def apply(self, manifest: KubeObject) -> KubeObject:
        """Applies a manifest by server-side apply as the field manager `kaito`, and returns the object."""
        return await self._apply(manifest)

    async def apply_status(self, document: KubeObject, status: Mapping[str, Any]) -> KubeObject:
        """Applies the status of an object; fails where the object was replaced by another of the same name."""
        return await self._apply({**identity(document), "status": dict(status)}, "status")

    async def _apply(self, manifest: KubeObject, subresource: str = "") -> KubeObject:
        resource = await self._resource(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace", "")
        before = self.cache.get(resource, name, namespace)
        path = object_path(resource, namespace, name, subresource)
        call = Call("PATCH", path, {"force": "true"}, manifest, APPLY)
        status, answer = await self._write("patch", resource, call, subresource)
        changed = before is None or _version(before) != _version(answer)
        if not subresource and changed:
            _log_change(
                "Create" if status == 201 else "Change", resource, name, "Missing" if status == 201 else "Differs"
            )
        return self._store(resource, answer, wrote=subresource)

    async def delete(self, resource: ResourceType, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """Deletes an object, with `uid` only that one; returns False where it or its type was absent already."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._write("delete", resource, Call("DELETE", object_path(resource, namespace, name), body=options))
        except ClusterError as error:
            if error.status != 404:
                raise
            if cached := self.cache.get(resource, name, namespace):
                self.cache.remove(resource, cached, gone=True)
            return False
        _log_change("Delete", resource, name, "NotNeeded")
        return True  # the cache learns of it from the watch, which wakes the Workspaces concerned

    async def annotate(
        self, resource: ResourceType, name: str, namespace: str, uid: str, annotations: Mapping[str, str]
    ) -> None:
        """Sets annotations of the object with that uid."""
        patch = {"metadata": {"uid": uid, "annotations": dict(annotations)}}
        call = Call("PATCH", object_path(resource, namespace, name), body=patch, content_type=MERGE)
        self._store(resource, (await self._write("patch", resource, call))[1])
        _log_change("Annotate", resource, name, "ConfigurationChanged")

    async def remove_finalizer(self, resource: ResourceType, obj: KubeObject, finalizer: str) -> None:
        """Removes a finalizer that somebody else added, if the object still has it at the same place."""
        metadata = obj["metadata"]
        path = f"/metadata/finalizers/{metadata['finalizers'].index(finalizer)}"
        patch = [{"op": "test", "path": path, "value": finalizer}, {"op": "remove", "path": path}]
        place = object_path(resource, metadata.get("namespace", ""), metadata["name"])
        await self._write("patch", resource, Call("PATCH", place, body=patch, content_type=JSON_PATCH))
        _log_change("Change", resource, metadata["name"], "FinalizerOfAnother")

    async def add_ephemeral_container(
        self, pods: ResourceType, name: str, namespace: str, uid: str, container: KubeObject
    ) -> None:
        """Adds an ephemeral container to the running pod with that uid; one of the same name stays as it is."""
        # Server-side apply would remove the containers that others added; merging by name keeps them.
        patch = {"metadata": {"uid": uid}, "spec": {"ephemeralContainers": [container]}}
        path = object_path(pods, namespace, name, "ephemeralcontainers")
        call = Call("PATCH", path, body=patch, content_type=STRATEGIC)
        self._store(pods, (await self._write("patch", pods, call, "ephemeralcontainers"))[1])
        _log_change("AddContainer", pods, name, "AdapterAdded")

    async def create(self, resource: ResourceType, manifest: KubeObject, *, lease: bool = False) -> KubeObject:
        """Creates an object; `lease`: it is the Lease, which candidates write before they lead."""
        call = Call("POST", object_path(resource, manifest["metadata"].get("namespace", "")), body=manifest)
        return (await self._write("create", resource, call, fenced=not lease))[1]

    async def replace(self, resource: ResourceType, obj: KubeObject, *, lease: bool = False) -> KubeObject:
        """Replaces an object if it still has the resource version of `obj`; `lease` as for `create`."""
        metadata = obj["metadata"]
        call = Call("PUT", object_path(resource, metadata.get("namespace", ""), metadata["name"]), body=obj)
        return (await self._write("update", resource, call, fenced=not lease))[1]

    async def _write(
        self, verb: str, resource: ResourceType, call: Call, subresource: str = "", *, fenced: bool = True
    ) -> tuple[int, KubeObject]:
        """Sends a write and returns the status and the document of the answer.

        Raises:
            ClusterError: As for any request, and where this operator has lost the lead.
        """
        if fenced and not self.may_write():
            raise ClusterError(f"{call}: not sent: this operator does not lead any more")
        if call.method != "DELETE":
            call = dataclasses.replace(call, query={**call.query, "fieldManager": MANAGER})
        return await exchange(
            self._send, call, lambda status: self.on_write(Write(verb, resource, subresource, status))
        )

    def _store(self, resource: ResourceType, obj: KubeObject, *, wrote: str = "") -> KubeObject:
        """Stores the answer to a write: the next pass must see it, even before the watch has reported it.

        The answer also contains what others wrote just before, which the watch will then report as known.
        """
        change = self.cache.put(resource, obj)
        if change is not None and change.old is not None and _without(change.old, wrote) != _without(obj, wrote):
            self.on_change(change)
        return obj

    async def _resource(self, api_version: str, kind: str) -> ResourceType:
        if (api_version, kind) not in self._types:
            prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            group, _, version = api_version.rpartition("/")
            for found in (await self._read(prefix))["resources"]:
                if "/" not in found["name"]:
                    resource = ResourceType(group, version, found["name"], found["kind"], found["namespaced"])
                    self._types.setdefault((api_version, found["kind"]), resource)
        if (api_version, kind) not in self._types:
            raise ClusterError(f"the cluster has no {kind} in {api_version}", status=404, api_reason="NotFound")
        return self._types[api_version, kind]

    async def _read(self, path: str, query: Mapping[str, str] | None = None) -> KubeObject:
        return (await exchange(self._send, Call("GET", path, query or {})))[1]


def _log_change(action: str, resource: ResourceType, name: str, reason: str) -> None:
    """Logs a change of the cluster, one line each."""
    thing = f"{resource.kind}/{name}"
    log.info("%s %s: %s", action, thing, reason, extra={"action": action, "object": thing, "reason": reason})


def _version(obj: KubeObject) -> str:
    return str(obj["metadata"].get("resourceVersion", ""))


def _without(obj: KubeObject, field: str) -> KubeObject:
    """Returns an object without one field and without the metadata that every write changes."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    return {**{key: value for key, value in obj.items() if key != field}, "metadata": metadata}
