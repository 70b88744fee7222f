"""The object store of the emulated API: reads, writes and their rules. No HTTP, no threads, no waiting.

Stored objects are never changed in place: every write makes a new object, so that history and readers may share them.
"""

from __future__ import annotations

import base64
import copy
import json
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kaito_testing.kube import errors
from kaito_testing.kube.objects import controller_manager, conversion, fields
from kaito_testing.kube.objects.collector import Collector
from kaito_testing.kube.objects.fields import Writer
from kaito_testing.kube.objects.history import Event, History
from kaito_testing.kube.objects.options import WriteOptions
from kaito_testing.kube.objects.resources import BUILTIN, CRDS, NAMESPACES, Resource, of_crd
from kaito_testing.kube.schemas import request_body as intake
from kaito_testing.kube.schemas import validation

__all__ = ["Page", "Store"]

Object = dict[str, Any]
Key = tuple[str, str]  # (namespace, name)
Predicate = Callable[[Mapping[str, Any]], bool]

INITIAL_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


@dataclass(frozen=True, slots=True)
class Page:
    """Objects of a list, the revision they are from, and where the next page starts ("" on the last one)."""

    items: list[Object]
    revision: int
    next: str = ""
    remaining: int = 0


class Store:
    """All objects of one emulated cluster.

    Args:
        clock: The time that new objects and entries get.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.history = History()
        self.listeners: list[Callable[[], None]] = []
        self.revision = 0
        self._clock = clock
        self._resources = {(item.group, item.version, item.plural): item for item in BUILTIN}
        self._objects: dict[tuple[str, str], dict[Key, Object]] = {}
        self.collector = Collector(self)
        for name in INITIAL_NAMESPACES:
            self.create(NAMESPACES, "", {"metadata": {"name": name}}, WriteOptions("kube-apiserver"))

    # Resource types

    def resources(self) -> list[Resource]:
        """Everything that is served now."""
        return list(self._resources.values())

    def resource(self, group: str, version: str, plural: str) -> Resource | None:
        """A served resource type, None where there is none."""
        return self._resources.get((group, version, plural))

    def resource_of(self, obj: Mapping[str, Any]) -> Resource:
        """The resource type of a manifest.

        Raises:
            ApiError: 404 where the API does not serve the kind.
        """
        for resource in self._resources.values():
            if (resource.api_version, resource.kind) == (obj.get("apiVersion"), obj.get("kind")):
                return resource
        message = f'no matches for kind "{obj.get("kind")}" in version "{obj.get("apiVersion")}"'
        raise errors.ApiError(404, "NotFound", message)

    # Reads

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """A private copy of an object.

        Raises:
            ApiError: 404 where it is absent.
        """
        return copy.deepcopy(conversion.from_storage(resource, self.stored(resource, namespace, name)))

    def stored(self, resource: Resource, namespace: str, name: str) -> Object:
        """The stored object itself, which must not be changed.

        Raises:
            ApiError: 404 where it is absent.
        """
        found = self.objects(resource.storage).get((namespace, name))
        if found is None:
            raise errors.not_found(resource, name)
        return found

    def objects(self, storage: tuple[str, str]) -> dict[Key, Object]:
        """The stored objects of a resource type by (namespace, name); not to be changed."""
        return self._objects.setdefault(storage, {})

    def page(
        self,
        resource: Resource,
        namespace: str = "",
        matches: Predicate = lambda _: True,
        limit: int = 0,
        start: str = "",
    ) -> Page:
        """Objects in order of namespace and name; of all namespaces where none is named.

        Args:
            resource: Their type.
            namespace: Where, "" for everywhere.
            matches: Which.
            limit: At most so many, 0 for all.
            start: `Page.next` of the page before.

        Raises:
            ApiError: 410 where that page is older than the history.
        """
        revision, *after = json.loads(base64.urlsafe_b64decode(start)) if start else (self.revision, "", "")
        if revision < self.history.compacted:
            raise errors.continue_expired()
        found = [
            (key, conversion.from_storage(resource, obj))
            for key, obj in sorted(self.objects(resource.storage).items())
            if key > tuple(after) and namespace in ("", key[0]) and matches(obj)
        ]
        page = found[:limit] if limit else found
        more = len(found) - len(page)
        token = base64.urlsafe_b64encode(json.dumps([revision, *page[-1][0]]).encode()).decode() if more else ""
        # The first page's revision: from there a watch misses nothing, whatever came between two pages.
        return Page([obj for _, obj in page], revision, token, more)

    # Writes

    def create(self, resource: Resource, namespace: str, body: Object, options: WriteOptions) -> Object:
        """Adds an object.

        Raises:
            ApiError: 409 where the name is taken, 422 where the object breaks a rule, 404 for an absent namespace.
        """
        obj = intake.read_body(resource, namespace, body)
        if obj["metadata"].get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        return self._insert(resource, obj, options, Writer(options.manager, "Update", options.subresource))

    def _insert(self, resource: Resource, obj: Object, options: WriteOptions, writer: Writer) -> Object:
        meta = obj["metadata"]
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + secrets.token_hex(3)[:5]
        if not meta.get("name"):
            cause = errors.Cause(
                "metadata.name", "Required value: name or generateName is required", "FieldValueRequired"
            )
            raise errors.invalid(resource, "", [cause])
        owners = meta.get("managedFields") if writer.operation == "Apply" else None
        for name in (*intake.SERVER_META, "resourceVersion"):
            meta.pop(name, None)
        if "status" in resource.subresources and resource.kind != "Node":
            obj.pop("status", None)
        meta["uid"], meta["creationTimestamp"] = str(uuid.uuid4()), self.now()
        if resource.generation:
            meta["generation"] = 1
        obj = intake.complete(resource, None, obj, strict=options.strict)
        causes = validation.check_new(resource, obj)
        if causes:
            raise errors.invalid(resource, meta["name"], causes)
        self._check_namespace(resource, meta)
        if (meta.get("namespace", ""), meta["name"]) in self.objects(resource.storage):
            raise errors.already_exists(resource, meta["name"])
        if owners is not None:
            obj["metadata"]["managedFields"] = owners
        else:
            obj = fields.track(None, obj, resource.shape, writer, self.now())
        obj["apiVersion"] = resource.storage_api_version
        stored = self.commit(resource, None, obj, dry_run=options.dry_run)
        if not options.dry_run:
            controller_manager.after_create(self, resource, stored)
        return self._answer(resource, stored)

    def update(self, resource: Resource, namespace: str, name: str, body: Object, options: WriteOptions) -> Object:
        """Replaces an object, or the part that a subresource stands for.

        Raises:
            ApiError: 404 where it is absent, 409 for a stale resourceVersion, 422 where the result breaks a rule.
        """
        old = self.stored(resource, namespace, name)
        new = intake.read_body(resource, namespace, body, name)
        if resource.custom and not new["metadata"].get("resourceVersion"):
            message = "Invalid value: 0x0: must be specified for an update"
            raise errors.invalid(resource, name, [errors.Cause("metadata.resourceVersion", message)])
        return self._replace(resource, old, new, options)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Object], Object],
        options: WriteOptions,
    ) -> Object:
        """Replaces an object by what a function (a merge, JSON or strategic patch) makes of it.

        Raises:
            ApiError: As `update`, and whatever the function raises.
        """
        old = self.stored(resource, namespace, name)
        new = change(copy.deepcopy(conversion.from_storage(resource, old)))
        return self._replace(resource, old, intake.read_body(resource, namespace, new, name), options)

    def apply(
        self, resource: Resource, namespace: str, name: str, config: Object, options: WriteOptions
    ) -> tuple[Object, bool]:
        """Server-side apply; returns the object and whether it is new.

        Raises:
            ApiError: 409 with every conflicting field, 500 for unknown fields of custom resources, or as `update`.
        """
        body = intake.read_config(resource, namespace, config, name, options.subresource)
        old = self.objects(resource.storage).get((namespace if resource.namespaced else "", name))
        writer = Writer(options.manager, "Apply", options.subresource)
        if old is None:
            if options.subresource:
                raise errors.not_found(resource, name)
            empty: Object = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": {}}
            new = fields.apply(empty, body, resource.shape, writer, force=True, now=self.now())
            new["metadata"] = {**body["metadata"], "managedFields": new["metadata"].get("managedFields")}
            return self._insert(resource, copy.deepcopy(new), options, writer), True
        intake.check_version(resource, old, body)
        new = fields.apply(old, body, resource.shape, writer, force=options.force, now=self.now())
        owners = new["metadata"].get("managedFields", [])
        return self._replace(resource, old, copy.deepcopy(new), options, owners), False

    def _replace(
        self,
        resource: Resource,
        old: Object,
        new: Object,
        options: WriteOptions,
        owners: list[Object] | None = None,
    ) -> Object:
        """Writes a new state of an object unless nothing changed."""
        name = old["metadata"]["name"]
        if owners is None:
            intake.check_version(resource, old, new)
        new = intake.part(resource, old, new, options.subresource)
        kept = (*intake.SERVER_META, "resourceVersion")
        meta = {key: value for key, value in new["metadata"].items() if key not in kept}
        new["metadata"] = meta | {key: old["metadata"][key] for key in kept if key in old["metadata"]}
        new = intake.complete(resource, old, new, strict=options.strict)
        causes = validation.check_change(resource, old, new, options.subresource)
        causes += [] if options.subresource else validation.check_new(resource, new)
        if causes:
            raise errors.invalid(resource, name, causes)
        if resource.generation and intake.desired(resource, new) != intake.desired(resource, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if owners is not None:
            new["metadata"].pop("managedFields", None)
            new["metadata"] |= {"managedFields": owners} if owners else {}
        else:
            writer = Writer(options.manager, "Update", options.subresource)
            new = fields.track(old, new, resource.shape, writer, self.now())
        new["apiVersion"] = old["apiVersion"]
        if new == old:
            return self._answer(resource, old)
        done = self.collector.finished(new)
        stored = self.commit(resource, old, new, dry_run=options.dry_run, deleted=done)
        return self._answer(resource, stored)

    def commit(
        self, resource: Resource, old: Object | None, new: Object, *, dry_run: bool = False, deleted: bool = False
    ) -> Object:
        """Stores a state (or removes the object) and tells the watchers. The one place where the store changes."""
        if dry_run:
            version = (old or {}).get("metadata", {}).get("resourceVersion")
            return new if version is None else {**new, "metadata": {**new["metadata"], "resourceVersion": version}}
        self.revision += 1
        new = {**new, "metadata": {**new["metadata"], "resourceVersion": str(self.revision)}}
        key = (new["metadata"].get("namespace", ""), new["metadata"]["name"])
        if deleted:
            self.objects(resource.storage).pop(key, None)
        else:
            self.objects(resource.storage)[key] = new
        self.history.events.append(Event(self.revision, resource.storage, old, new, deleted))
        if resource.storage == CRDS.storage:
            self._serve(new, deleted=deleted)
        self.collector.notice(resource, old, new, deleted=deleted)
        for listener in self.listeners:
            listener()
        return new

    # Rules shared by the writes

    def now(self) -> str:
        """The time as the API writes it."""
        return self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")

    def _answer(self, resource: Resource, obj: Object) -> Object:
        return copy.deepcopy(conversion.from_storage(resource, obj))

    def _check_namespace(self, resource: Resource, meta: Object) -> None:
        if not resource.namespaced:
            return
        space = self.objects(NAMESPACES.storage).get(("", meta["namespace"]))
        if space is None:
            raise errors.not_found(NAMESPACES, meta["namespace"])
        if "deletionTimestamp" in space["metadata"]:
            why = f"unable to create new content in namespace {meta['namespace']} because it is being terminated"
            raise errors.forbidden(resource, meta["name"], why)

    def _serve(self, crd: Object, *, deleted: bool) -> None:
        """Keeps the served resource types in step with a CRD."""
        storage = (crd["spec"]["group"], crd["spec"]["names"]["plural"])
        self._resources = {key: item for key, item in self._resources.items() if item.storage != storage}
        if not deleted:
            self._resources |= {(item.group, item.version, item.plural): item for item in of_crd(crd)}
