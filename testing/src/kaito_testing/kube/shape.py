"""How the values of a type merge: which lists have keys, which are sets, and which values are replaced as a whole.

Custom resources say so in their schema; for built-in types there are two tables here. The merging itself is in
`objects.fields` and `objects.patches`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["BuiltinShape", "SchemaShape", "Shape", "item_key"]

_SET = ("",)  #: marks a list whose items are their own keys

#: Keys of the lists of built-in types, by (parent field, field) or by field alone; other lists are replaced as a whole.
_LIST_KEYS: dict[str | tuple[str, str], tuple[str, ...]] = {
    "finalizers": _SET,
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "podIPs": ("ip",),
    "addresses": ("type",),
    ("containers", "ports"): ("containerPort", "protocol"),
    ("initContainers", "ports"): ("containerPort", "protocol"),
    ("spec", "ports"): ("port", "protocol"),
}
#: Where a strategic merge patch has fewer keys than an apply.
_STRATEGIC_KEYS: dict[str | tuple[str, str], tuple[str, ...]] = {
    ("containers", "ports"): ("containerPort",),
    ("initContainers", "ports"): ("containerPort",),
    ("spec", "ports"): ("port",),
    "topologySpreadConstraints": ("topologyKey",),
    "taints": ("key",),
}
_ATOMIC_MAPS = {
    "selector",
    "nodeSelector",
    "labelSelector",
    "namespaceSelector",
    "matchLabels",
    "fieldRef",
    "secretRef",
}
_KEY_DEFAULTS = {"protocol": "TCP"}


class Shape(Protocol):
    """How the value at one place merges."""

    @property
    def atomic(self) -> bool:
        """Whether a map is replaced as a whole."""
        ...

    @property
    def keys(self) -> tuple[str, ...]:
        """The fields that identify the items of a list; empty if the list is replaced as a whole."""
        ...

    @property
    def is_set(self) -> bool:
        """Whether a list is a set of scalars."""
        ...

    def child(self, name: str) -> Shape:
        """The shape of a field."""
        ...

    def item(self) -> Shape:
        """The shape of a list's items."""
        ...


@dataclass(frozen=True, slots=True)
class BuiltinShape:
    """The shape of a built-in type, found by field names."""

    name: str = ""
    parent: str = ""
    strategic: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        tables = (_STRATEGIC_KEYS, _LIST_KEYS) if self.strategic else (_LIST_KEYS,)
        for table in tables:
            found = table.get((self.parent, self.name)) or table.get(self.name)
            if found:
                return () if found == _SET else found
        return ()

    @property
    def is_set(self) -> bool:
        return _LIST_KEYS.get(self.name) == _SET

    @property
    def atomic(self) -> bool:
        return not self.strategic and self.name in _ATOMIC_MAPS

    def child(self, name: str) -> BuiltinShape:
        return BuiltinShape(name, self.name, self.strategic)

    def item(self) -> BuiltinShape:
        return self


@dataclass(frozen=True, slots=True)
class SchemaShape:
    """The shape of a custom resource, read from its OpenAPI schema."""

    schema: dict[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        if self.schema.get("x-kubernetes-list-type") != "map":
            return ()
        return tuple(self.schema.get("x-kubernetes-list-map-keys", ()))

    @property
    def is_set(self) -> bool:
        return bool(self.schema.get("x-kubernetes-list-type") == "set")

    @property
    def atomic(self) -> bool:
        return bool(self.schema.get("x-kubernetes-map-type") == "atomic")

    def child(self, name: str) -> Shape:
        properties = self.schema.get("properties", {})
        if name == "metadata":
            return BuiltinShape(name)
        more = self.schema.get("additionalProperties")
        return SchemaShape(properties.get(name) or (more if isinstance(more, dict) else {}))

    def item(self) -> SchemaShape:
        return SchemaShape(self.schema.get("items") or {})


def item_key(item: Any, shape: Shape) -> str | None:
    """The path element of a list's item, e.g. 'k:{"name":"c"}' or 'v:"x"'; None if the list has no keys."""
    if shape.is_set:
        return "v:" + json.dumps(item, sort_keys=True)
    if not shape.keys or not isinstance(item, dict):
        return None
    values = {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in shape.keys}
    return "k:" + json.dumps(values, sort_keys=True, separators=(",", ":"))
