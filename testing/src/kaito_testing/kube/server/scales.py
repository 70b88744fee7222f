"""The scale subresource: an object as a Scale, and what becomes of the object when a Scale is written.

Source: apiextensions-apiserver, pkg/registry/customresource/etcd.go, for the scale of custom resources.
"""

from __future__ import annotations

from typing import Any

from kaito_testing.kube import errors
from kaito_testing.kube.resources import Resource

__all__ = ["scale_of", "shown", "with_replicas"]

Object = dict[str, Any]

_SPEC, _STATUS, _SELECTOR = "specReplicasPath", "statusReplicasPath", "labelSelectorPath"


def scale_of(resource: Resource, obj: Object) -> Object:
    """The Scale of an object. As on a real server, its spec has no replicas if there are none."""
    meta = {
        name: obj["metadata"][name]
        for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if name in obj["metadata"]
    }
    paths = resource.scale
    if paths is None:
        replicas, ready = obj["spec"].get("replicas", 0), obj.get("status", {}).get("replicas", 0)
        labels = obj["spec"]["selector"].get("matchLabels") or {}
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    else:
        replicas, ready = _at(obj, paths[_SPEC]), _at(obj, paths[_STATUS]) or 0
        selector = _at(obj, paths.get(_SELECTOR, "")) or ""
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": replicas} if replicas else {},
        "status": {"replicas": ready, **({"selector": selector} if selector else {})},
    }


def shown(resource: Resource, obj: Object) -> Object:
    """The Scale of an object that says how many replicas it wants.

    Raises:
        ApiError: 500 if a custom resource does not say it.
    """
    if resource.scale is not None and _at(obj, resource.scale[_SPEC]) is None:
        path = resource.scale[_SPEC]
        message = f'Internal error occurred: the spec replicas field "{path}" does not exist'
        raise errors.ApiError(500, "InternalError", message)
    return scale_of(resource, obj)


def with_replicas(resource: Resource, obj: Object, scale: Object) -> Object:
    """An object with the replicas of a Scale that is written.

    Raises:
        ApiError: 400 or 422 if they are no number of replicas, 409 for a stale resourceVersion.
    """
    given, meta = scale.get("spec") or {}, scale.get("metadata") or {}
    path = "spec.replicas" if resource.scale is None else resource.scale[_SPEC].lstrip(".")
    unsaid = "replicas" not in given and resource.scale is not None and _at(obj, path) is None
    if unsaid:
        raise errors.bad_request(f'the spec replicas field ".{path}" cannot be empty')
    replicas = given.get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise errors.bad_request(f"spec.replicas must be an integer, got {replicas!r}")
    if replicas < 0:
        cause = errors.Cause("spec.replicas", f"Invalid value: {replicas}: must be greater than or equal to 0")
        raise errors.invalid(resource, obj["metadata"]["name"], [cause])
    if meta.get("resourceVersion"):
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": meta["resourceVersion"]}}
    return _put(obj, path.split("."), replicas)


def _at(obj: Any, path: str) -> Any:
    for name in path.strip(".").split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _put(obj: Object, path: list[str], value: object) -> Object:
    if not path:
        return value  # type: ignore[return-value]
    return {**obj, path[0]: _put(obj.get(path[0]) or {}, path[1:], value)}
