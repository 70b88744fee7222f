"""Whether a CRD's schema is structural, as the API server asks before it takes the CRD. What rules cost is elsewhere.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kaito_testing.kube.errors import Cause
from kaito_testing.kube.schemas import cel, schema

__all__ = ["structural_causes"]

Schema = Mapping[str, Any]

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
#: Keywords that say how a value is made up. Each value has one place for them, which is outside of `not` and the like.
_STRUCTURE = frozenset(
    {
        *(
            "type",
            "properties",
            "additionalProperties",
            "items",
            "default",
            "nullable",
            "title",
            "description",
            "example",
        ),
        *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "x-kubernetes-embedded-resource"),
        *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"),
        "externalDocs",
    }
)
#: Keywords that restrict a value.
_RESTRICTIONS = frozenset(
    {
        *(
            "format",
            "maximum",
            "exclusiveMaximum",
            "minimum",
            "exclusiveMinimum",
            "multipleOf",
            "maxLength",
            "minLength",
        ),
        *("pattern", "maxItems", "minItems", "maxProperties", "minProperties", "required", "enum", "uniqueItems"),
        *("x-kubernetes-validations", "allOf", "anyOf", "oneOf", "not"),
    }
)
_RULE_WORDS = frozenset({"rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf"})
_INNER_STRUCTURE = frozenset({"properties", "items"})  # of `not` and the like: to reach what they restrict


def structural_causes(crd: Mapping[str, Any]) -> list[Cause]:
    """What keeps the schemas of a CRD from being structural."""
    causes: list[Cause] = []
    for index, version in enumerate(crd["spec"]["versions"]):
        found = (version.get("schema") or {}).get("openAPIV3Schema")
        if found is not None:
            causes += _root_problems(found, f"spec.versions[{index}].schema.openAPIV3Schema")
    return causes


def _root_problems(root: Schema, path: str) -> Iterator[Cause]:
    if root.get("type") != "object":
        yield _cause(f"{path}.type", "must be object at the root")
    if root.get("nullable"):
        yield _cause(f"{path}.nullable", "must not be true at the root")
    metadata = (root.get("properties") or {}).get("metadata") or {}
    if set(metadata) - {"type", "properties", "description"} or set(metadata.get("properties") or {}) - {
        "name",
        "generateName",
    }:
        yield _cause(f"{path}.properties[metadata]", "must only restrict metadata.name and metadata.generateName")
    yield from _problems(root, path)


def _problems(node: Schema, path: str) -> Iterator[Cause]:
    for word in sorted(set(node) - _STRUCTURE - _RESTRICTIONS):
        yield _cause(f"{path}.{word}", f"{word} is not supported")
    if node.get("uniqueItems"):
        yield _cause(f"{path}.uniqueItems", "must not be true: it takes quadratic time")
    yield from _type_problems(node, path)
    yield from _list_problems(node, path)
    yield from _default_problems(node, path)
    yield from _rule_problems(node, path)
    for word in ("allOf", "anyOf", "oneOf"):
        for index, option in enumerate(node.get(word) or ()):
            yield from _inner_problems(option, node, f"{path}.{word}[{index}]")
    if "not" in node:
        yield from _inner_problems(node["not"], node, f"{path}.not")
    for name, sub in (node.get("properties") or {}).items():
        yield from _problems(sub, f"{path}.properties[{name}]")
    for word in ("items", "additionalProperties"):
        if isinstance(node.get(word), Mapping):
            yield from _problems(node[word], f"{path}.{word}")


def _type_problems(node: Schema, path: str) -> Iterator[Cause]:
    kind, keeps = node.get("type"), node.get("x-kubernetes-preserve-unknown-fields")
    mixed = node.get("x-kubernetes-int-or-string")
    if kind is None and not keeps and not mixed:
        yield _cause(f"{path}.type", "must not be empty for specified object fields")
    if kind is not None and kind not in _TYPES:
        yield _cause(f"{path}.type", f"must be one of {', '.join(_TYPES)}")
    if kind is not None and mixed:
        yield _cause(f"{path}.type", "must be empty if x-kubernetes-int-or-string is true")
    if keeps is False:
        yield _cause(f"{path}.x-kubernetes-preserve-unknown-fields", "must be true or undefined")
    if "properties" in node and node.get("additionalProperties") not in (None, False):
        yield _cause(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
    if node.get("additionalProperties") is False:
        yield _cause(f"{path}.additionalProperties", "additionalProperties cannot be set to false")
    if ("properties" in node or isinstance(node.get("additionalProperties"), Mapping)) and kind not in ("object", None):
        yield _cause(f"{path}.type", "must be object where there are properties")
    if kind == "array" and not isinstance(node.get("items"), Mapping):
        yield _cause(f"{path}.items", "must be specified, and be one schema")


def _list_problems(node: Schema, path: str) -> Iterator[Cause]:
    kind, keys, items = (
        node.get("x-kubernetes-list-type"),
        node.get("x-kubernetes-list-map-keys"),
        node.get("items") or {},
    )
    if kind is not None and node.get("type") != "array":
        yield _cause(f"{path}.type", "must be array if x-kubernetes-list-type is specified")
    if kind not in (None, "atomic", "set", "map"):
        yield _cause(f"{path}.x-kubernetes-list-type", "must be atomic, set or map")
    if kind != "map" and keys:
        yield _cause(f"{path}.x-kubernetes-list-map-keys", "needs x-kubernetes-list-type map")
    if kind == "set" and items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        yield _cause(f"{path}.items.x-kubernetes-map-type", "must be atomic as item of a list with list-type set")
    if kind != "map":
        return
    if not keys:
        yield _cause(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
    for index, key in enumerate(keys or ()):
        found = (items.get("properties") or {}).get(key)
        where = f"{path}.x-kubernetes-list-map-keys[{index}]"
        if found is None or found.get("type") in (None, "object", "array") or found.get("nullable"):
            yield _cause(where, f"must be a scalar property of the items, got '{key}'")
        elif key not in (items.get("required") or ()) and "default" not in found:
            yield _cause(
                f"{path}.items.properties[{key}].default",
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            )


def _default_problems(node: Schema, path: str) -> Iterator[Cause]:
    default = node.get("default")
    if default is None:
        return
    if schema.prune(default, dict(node), "default")[1]:
        yield _cause(f"{path}.default", "must not have unknown fields")
    for cause in schema.problems(default, dict(node), "default"):
        yield _cause(f"{path}.{cause.field}", cause.message)


def _rule_problems(node: Schema, path: str) -> Iterator[Cause]:
    for index, rule in enumerate(node.get("x-kubernetes-validations") or ()):
        where, text = f"{path}.x-kubernetes-validations[{index}]", rule.get("rule") or ""
        for word in sorted(set(rule) - _RULE_WORDS):
            yield _cause(f"{where}.{word}", f"{word} is not supported")
        if not text.strip():
            yield Cause(f"{where}.rule", "Required value: rule is not specified", "FieldValueRequired")
        elif reason := cel.fault(text):
            yield _cause(f"{where}.rule", f"compilation failed: {reason}")
        message = rule.get("message")
        if message is not None and (not message.strip() or "\n" in message):
            yield _cause(f"{where}.message", "must be one line that is not empty")
        if message is None and "\n" in text.strip():
            yield Cause(f"{where}.message", "Required value: for a rule of several lines", "FieldValueRequired")
        if "fieldPath" in rule and not _leads_somewhere(rule["fieldPath"], node):
            yield _cause(f"{where}.fieldPath", f"must lead to a field of the schema, got '{rule['fieldPath']}'")


def _leads_somewhere(field_path: str, node: Schema) -> bool:
    if not field_path.startswith((".", "[")):
        return False
    found: Any = node
    for name in re.findall(r"[.](\w+)|\['([^']*)'\]", field_path):
        known, more = found.get("properties") or {}, found.get("additionalProperties")
        found = known.get(name[0] or name[1]) or (more if isinstance(more, Mapping) else None)
        if found is None:
            return False
    return True


def _inner_problems(inner: Schema, outer: Schema, path: str) -> Iterator[Cause]:
    """Problems of a part that only restricts, such as `not`: what it names must be said outside."""
    for word in sorted(set(inner) & _STRUCTURE - _INNER_STRUCTURE):
        yield _cause(
            f"{path}.{word}", "must be empty to be structural: it is said outside of allOf, anyOf, oneOf and not"
        )
    for word in sorted(set(inner) - _STRUCTURE - _RESTRICTIONS):
        yield _cause(f"{path}.{word}", f"{word} is not supported")
    for name, sub in (inner.get("properties") or {}).items():
        known = (outer.get("properties") or {}).get(name)
        if known is None:
            yield _cause(f"{path}.properties[{name}]", "must be specified outside of it too")
        yield from _inner_problems(sub, known or {}, f"{path}.properties[{name}]")
    if isinstance(inner.get("items"), Mapping):
        yield from _inner_problems(inner["items"], outer.get("items") or {}, f"{path}.items")
    for word in ("allOf", "anyOf", "oneOf"):
        for index, option in enumerate(inner.get(word) or ()):
            yield from _inner_problems(option, outer, f"{path}.{word}[{index}]")
    if "not" in inner:
        yield from _inner_problems(inner["not"], outer, f"{path}.not")


def _cause(field: str, words: str) -> Cause:
    return Cause(field, f"Invalid value: {words}")
