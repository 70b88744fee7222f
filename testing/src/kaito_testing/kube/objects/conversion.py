"""Events are stored once and served in two API groups under different field names. No other type is converted."""

from __future__ import annotations

from typing import Any

from kaito_testing.kube.resources import Resource

__all__ = ["from_storage", "to_storage"]

Object = dict[str, Any]

#: Field of events.k8s.io/v1 -> field of v1.
_EVENT_FIELDS = {
    "note": "message",
    "regarding": "involvedObject",
    "deprecatedCount": "count",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedSource": "source",
    "reportingController": "reportingComponent",
}


def to_storage(resource: Resource, obj: Object) -> Object:
    """An object as it is stored."""
    if resource.group != "events.k8s.io":
        return obj
    return {_EVENT_FIELDS.get(name, name): value for name, value in obj.items()}


def from_storage(resource: Resource, obj: Object) -> Object:
    """A stored object as a version of its type shows it; it shares its values with the stored one."""
    if resource.group == "events.k8s.io":
        names = {old: new for new, old in _EVENT_FIELDS.items()}
        obj = {names.get(name, name): value for name, value in obj.items()}
    return {**obj, "apiVersion": resource.api_version, "kind": resource.kind}
