"""List and Table representations of objects. Those of their number of replicas are in `scales`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from kaito_testing.kube.objects.store import Page
from kaito_testing.kube.resources import Resource

__all__ = ["list_of", "table_of"]

Object = dict[str, Any]

_NAME_COLUMN = {
    "name": "Name",
    "type": "string",
    "format": "name",
    "description": (
        "Name must be unique within a namespace. Is required when creating resources, although some resources may"
        " allow a client to request the generation of an appropriate name automatically. Name is primarily intended"
        " for creation idempotence and configuration definition. Cannot be updated. More info:"
        " https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
    ),
    "priority": 0,
}
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_FILTER = re.compile(r"""\[\?\(@\.(?P<field>\w+)\s*==\s*["'](?P<value>[^"']*)["']\)\]""")


def list_of(resource: Resource, page: Page) -> Object:
    """A page as a list object. Items of built-in types have no apiVersion and kind."""
    meta: Object = {"resourceVersion": str(page.revision)}
    if page.next:
        meta |= {"continue": page.next, "remainingItemCount": page.remaining}
    hidden = () if resource.custom else ("apiVersion", "kind")
    items = [{name: value for name, value in obj.items() if name not in hidden} for obj in page.items]
    return {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": meta, "items": items}


def table_of(resource: Resource, objects: Sequence[Object], revision: int) -> Object:
    """Objects as a Table, which `kubectl get` prints."""
    columns = resource.columns or (_AGE,)
    definitions = [
        {
            "name": column["name"],
            "type": column["type"],
            "format": column.get("format", ""),
            "description": column.get("description")
            or f"Custom resource definition column (in JSONPath format): {column['jsonPath']}",
            "priority": column.get("priority", 0),
        }
        for column in columns
    ]
    rows = [
        {
            "cells": [obj["metadata"]["name"], *(_cell(obj, column) for column in columns)],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": obj["metadata"],
            },
        }
        for obj in objects
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": str(revision)},
        "columnDefinitions": [_NAME_COLUMN, *definitions],
        "rows": rows,
    }


def _cell(obj: Object, column: Any) -> Any:
    value = _at(obj, column["jsonPath"])
    if value is not None and column["type"] == "date":
        then = datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        return f"{int((datetime.now(UTC) - then).total_seconds())}s"
    if column["type"] == "string" and isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"))
    return value


def _at(value: Any, path: str) -> Any:
    """The value at a simple JSONPath: fields, indices, and a filter by one field's value."""
    for part in re.findall(r"\[\?\(.*?\)\]|\[\d+\]|[^.\[\]]+", path):
        if found := _FILTER.fullmatch(part):
            value = next((item for item in value or () if str(item.get(found["field"])) == found["value"]), None)
        elif part.startswith("["):
            value = value[int(part[1:-1])] if isinstance(value, list) and len(value) > int(part[1:-1]) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value
