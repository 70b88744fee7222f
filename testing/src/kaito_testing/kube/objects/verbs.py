"""The API's verbs that write: create, update, patch, apply and delete, each with the rules of a real API server."""

from __future__ import annotations

import copy
import secrets
import uuid
from collections.abc import Callable
from typing import Any

from kaito_testing.kube import errors
from kaito_testing.kube.objects import conversion, deletion, fields, request_body
from kaito_testing.kube.objects.fields import Writer
from kaito_testing.kube.objects.options import DeleteOptions, WriteOptions
from kaito_testing.kube.objects.store import Store
from kaito_testing.kube.resources import NAMESPACES, Resource
from kaito_testing.kube.schemas import validation

__all__ = ["Verbs"]

Object = dict[str, Any]


class Verbs:
    """Writes to a store as requests do.

    Attributes:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def create(self, resource: Resource, namespace: str, body: Object, options: WriteOptions) -> Object:
        """Adds an object.

        Raises:
            ApiError: 409 if the name is taken, 422 if the object breaks a rule, 404 for an absent namespace.
        """
        obj = request_body.read_body(resource, namespace, body)
        if obj["metadata"].get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        return self._insert(resource, obj, options, Writer(options.manager, "Update", options.subresource))

    def update(self, resource: Resource, namespace: str, name: str, body: Object, options: WriteOptions) -> Object:
        """Replaces an object, or the part that a subresource stands for.

        Raises:
            ApiError: 404 if it does not exist, 409 for a stale resourceVersion, 422 if the result breaks a rule.
        """
        old = self.store.stored(resource, namespace, name)
        new = request_body.read_body(resource, namespace, body, name)
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
        old = self.store.stored(resource, namespace, name)
        new = change(copy.deepcopy(conversion.from_storage(resource, old)))
        return self._replace(resource, old, request_body.read_body(resource, namespace, new, name), options)

    def apply(
        self, resource: Resource, namespace: str, name: str, config: Object, options: WriteOptions
    ) -> tuple[Object, bool]:
        """Server-side apply; returns the object and whether it is new.

        Raises:
            ApiError: 409 with every conflicting field, 500 for unknown fields of custom resources, or as `update`.
        """
        body = request_body.read_config(resource, namespace, config, name, options.subresource)
        old = self.store.objects(resource.storage).get((namespace if resource.namespaced else "", name))
        writer = Writer(options.manager, "Apply", options.subresource)
        if old is None:
            if options.subresource:
                raise errors.not_found(resource, name)
            empty: Object = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": {}}
            new = fields.apply(empty, body, resource.shape, writer, force=True, now=self.store.now())
            new["metadata"] = {**body["metadata"], "managedFields": new["metadata"].get("managedFields")}
            return self._insert(resource, copy.deepcopy(new), options, writer), True
        request_body.check_version(resource, old, body)
        new = fields.apply(old, body, resource.shape, writer, force=options.force, now=self.store.now())
        owners = new["metadata"].get("managedFields", [])
        return self._replace(resource, old, copy.deepcopy(new), options, owners), False

    def delete(self, resource: Resource, namespace: str, name: str, options: DeleteOptions) -> Object:
        """Removes an object, or marks it as being deleted if something has to happen first.

        Returns:
            The object or a Status, as the API answers.

        Raises:
            ApiError: 404 if it does not exist, 409 if a precondition fails.
        """
        obj = self.store.stored(resource, namespace, name)
        deletion.check_preconditions(resource, obj, options)
        if options.dry_run:
            return deletion.success(resource, obj)
        marked = deletion.mark(resource, obj, options, self.store)
        if not deletion.is_finished(marked):
            if marked is not obj:
                self.store.commit(resource, obj, marked)
            return conversion.from_storage(resource, marked)
        self.store.commit(resource, obj, marked, deleted=True)
        returned = conversion.from_storage(resource, marked)
        return returned if resource.returns_deleted else deletion.success(resource, obj)

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
        for name in (*request_body.SERVER_META, "resourceVersion"):
            meta.pop(name, None)
        if "status" in resource.subresources and resource.kind != "Node":
            obj.pop("status", None)
        meta["uid"], meta["creationTimestamp"] = str(uuid.uuid4()), self.store.now()
        if resource.generation:
            meta["generation"] = 1
        obj = request_body.complete(resource, None, obj, strict=options.strict)
        causes = validation.check_new(resource, obj)
        if causes:
            raise errors.invalid(resource, meta["name"], causes)
        self._check_namespace(resource, meta)
        if (meta.get("namespace", ""), meta["name"]) in self.store.objects(resource.storage):
            raise errors.already_exists(resource, meta["name"])
        if owners is not None:
            obj["metadata"]["managedFields"] = owners
        else:
            obj = fields.track(None, obj, resource.shape, writer, self.store.now())
        obj["apiVersion"] = resource.storage_api_version
        return self._answer(resource, self.store.commit(resource, None, obj, dry_run=options.dry_run))

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
            request_body.check_version(resource, old, new)
        new = request_body.part(resource, old, new, options.subresource)
        kept = (*request_body.SERVER_META, "resourceVersion")
        meta = {key: value for key, value in new["metadata"].items() if key not in kept}
        new["metadata"] = meta | {key: old["metadata"][key] for key in kept if key in old["metadata"]}
        new = request_body.complete(resource, old, new, strict=options.strict)
        causes = validation.check_change(resource, old, new, options.subresource)
        causes += [] if options.subresource else validation.check_new(resource, new)
        if causes:
            raise errors.invalid(resource, name, causes)
        if resource.generation and request_body.desired(resource, new) != request_body.desired(resource, old):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if owners is not None:
            new["metadata"].pop("managedFields", None)
            new["metadata"] |= {"managedFields": owners} if owners else {}
        else:
            writer = Writer(options.manager, "Update", options.subresource)
            new = fields.track(old, new, resource.shape, writer, self.store.now())
        new["apiVersion"] = old["apiVersion"]
        if new == old:
            return self._answer(resource, old)
        done = deletion.is_finished(new)
        return self._answer(resource, self.store.commit(resource, old, new, dry_run=options.dry_run, deleted=done))

    def _answer(self, resource: Resource, obj: Object) -> Object:
        return copy.deepcopy(conversion.from_storage(resource, obj))

    def _check_namespace(self, resource: Resource, meta: Object) -> None:
        if not resource.namespaced:
            return
        space = self.store.objects(NAMESPACES.storage).get(("", meta["namespace"]))
        if space is None:
            raise errors.not_found(NAMESPACES, meta["namespace"])
        if "deletionTimestamp" in space["metadata"]:
            why = f"unable to create new content in namespace {meta['namespace']} because it is being terminated"
            raise errors.forbidden(resource, meta["name"], why)
