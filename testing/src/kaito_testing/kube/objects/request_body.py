"""How the body of a request becomes an object that may be stored: address, defaults, pruning, validation."""

from __future__ import annotations

import copy
from typing import Any

from kaito_testing.kube import errors
from kaito_testing.kube.objects import conversion
from kaito_testing.kube.resources import Resource
from kaito_testing.kube.schemas import defaults, rules, schema

__all__ = ["SERVER_META", "check_version", "complete", "desired", "part", "read_body", "read_config"]

Object = dict[str, Any]

#: Metadata that only the server writes.
SERVER_META = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
)


def read_body(resource: Resource, namespace: str, body: Object, name: str = "") -> Object:
    """A private copy of the body of a request, checked against its URL."""
    if not isinstance(body, dict):
        raise errors.bad_request("the body must be an object")
    obj = conversion.to_storage(resource, copy.deepcopy(body))
    given = (obj.get("apiVersion", resource.api_version), obj.get("kind", resource.kind))
    if given != (resource.api_version, resource.kind):
        message = f"the object provided is {given[0]} {given[1]}, expected {resource.api_version} {resource.kind}"
        raise errors.bad_request(message)
    meta = obj.setdefault("metadata", {})
    obj["apiVersion"], obj["kind"] = resource.api_version, resource.kind
    if name and meta.setdefault("name", name) != name:
        message = f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        raise errors.bad_request(message)
    if not resource.namespaced:
        meta.pop("namespace", None)
    elif meta.setdefault("namespace", namespace) != namespace:
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    return obj


def read_config(resource: Resource, namespace: str, config: Object, name: str, subresource: str) -> Object:
    """The configuration of an apply: its body without nulls, and without the parts that another subresource has.

    Raises:
        ApiError: 400 or 500 if it cannot be applied, e.g. for fields that the schema does not have.
    """
    if config.get("metadata", {}).get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    body = read_body(resource, namespace, _without_nulls(config), name)
    if resource.schema is not None:
        unknown = schema.prune(body, resource.schema)[1]
        if unknown:
            where = f"({namespace}/{name}; {resource.api_version}, Kind={resource.kind})"
            message = f"failed to create typed patch object {where}: .{unknown[0]}: field not declared in schema"
            raise errors.ApiError(500, "InternalError", message)
    if subresource == "status":
        body = {key: value for key, value in body.items() if key in ("apiVersion", "kind", "metadata", "status")}
        identity = ("name", "namespace", "resourceVersion", "uid")
        body["metadata"] = {key: value for key, value in body["metadata"].items() if key in identity}
    elif "status" in resource.subresources:
        body.pop("status", None)
    return body


def check_version(resource: Resource, old: Object, new: Object) -> None:
    """Raises `ApiError` (409) if the new object names another resourceVersion or uid than the old one has."""
    meta, name = new["metadata"], old["metadata"]["name"]
    if meta.get("resourceVersion") not in (None, "", old["metadata"]["resourceVersion"]):
        raise errors.conflict(resource, name)
    if meta.get("uid") not in (None, "", old["metadata"]["uid"]):
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {old['metadata']['uid']}"
        raise errors.conflict(resource, name, why)


def part(resource: Resource, old: Object, new: Object, subresource: str) -> Object:
    """The new object, with what the subresource does not cover taken from the old one."""
    if subresource == "ephemeralcontainers":
        part = copy.deepcopy(new["spec"].get("ephemeralContainers", []))
        return {**copy.deepcopy(old), "spec": {**copy.deepcopy(old["spec"]), "ephemeralContainers": part}}
    if subresource == "status":
        kept = {key: copy.deepcopy(value) for key, value in old.items() if key != "status"}
        return {**kept, **({"status": new["status"]} if "status" in new else {})}
    if "status" in resource.subresources:
        kept = {key: value for key, value in new.items() if key != "status"}
        return {**kept, **({"status": copy.deepcopy(old["status"])} if "status" in old else {})}
    return new


def complete(resource: Resource, old: Object | None, obj: Object, *, strict: bool) -> Object:
    """The object with defaults and without unknown fields, if it is valid.

    Raises:
        ApiError: 400 or 422 if it is not.
    """
    if resource.schema is None:
        try:
            defaults.fill((resource.group, resource.kind), obj)
        except (KeyError, TypeError, AttributeError) as error:
            raise errors.bad_request(f"{resource.kind} cannot be read: {error!r}") from error
        return obj
    obj, unknown = schema.prune(obj, resource.schema)
    if unknown and strict:
        what = ", ".join(f'unknown field "{field}"' for field in unknown)
        kind = resource.kind
        message = f'{kind} in version "{resource.version}" cannot be handled as a {kind}: strict decoding error: {what}'
        raise errors.bad_request(message)
    obj = schema.fill(obj, resource.schema)
    causes = schema.validate(obj, resource.schema, old) or list(rules.broken(obj, old, resource.schema))
    if causes:
        raise errors.invalid(resource, obj["metadata"]["name"], causes)
    return obj


def desired(resource: Resource, obj: Object) -> Object:
    """What metadata.generation counts: all but metadata and, if it is a subresource, status."""
    ignored = {"metadata", "apiVersion", "kind"} | ({"status"} if "status" in resource.subresources else set())
    return {name: value for name, value in obj.items() if name not in ignored}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
