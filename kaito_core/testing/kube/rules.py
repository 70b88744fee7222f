"""Validation rules (`x-kubernetes-validations`) of custom resources: where they stand, whether an object keeps them.

Of the server's cost estimate one thing is modelled, since it is easily met: comparing what an optional string field
yields has no known bound, and the rule is refused. Other rules count as cheap.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from kaito_core.testing.kube import cel
from kaito_core.testing.kube.cel_syntax import UnsupportedRule, parse
from kaito_core.testing.kube.errors import Cause
from kaito_core.testing.kube.shape import SchemaShape, item_key

__all__ = ["broken", "too_costly"]

_log = logging.getLogger(__name__)

Schema = Mapping[str, Any]
_TRY = (
    "of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps,"
    " and strings are declared)"
)


def broken(value: Any, old: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """The rules that a value breaks.

    Args:
        value: The value at this place.
        old: The stored value there, None where there is none (transition rules are not asked then).
        schema: Its schema.
        path: Its field path.
    """
    for rule in schema.get("x-kubernetes-validations") or ():
        yield from _check(rule, value, old, path)
    if isinstance(value, dict):
        known, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for name, sub in value.items():
            rules = known.get(name) or (more if isinstance(more, dict) else None)
            if rules:
                before = old.get(name) if isinstance(old, dict) else None
                yield from broken(sub, before, rules, f"{path}.{name}" if path else name)
    if isinstance(value, list) and schema.get("items"):
        shape = SchemaShape(dict(schema))
        earlier = {item_key(item, shape): item for item in old or ()} if shape.keys else {}
        for index, item in enumerate(value):
            before = earlier.get(item_key(item, shape)) if earlier else None
            yield from broken(item, before, schema["items"], f"{path}[{index}]")


def _check(rule: Mapping[str, Any], value: Any, old: Any, path: str) -> Iterator[Cause]:
    names = {"self": value, "oldSelf": old}
    field = f"{path}{rule.get('fieldPath', '')}".lstrip(".")
    try:
        tree = parse(rule["rule"])
        if old is None and _mentions(tree, "oldSelf"):
            return
        if cel.evaluate(tree, names) is True:
            return
        message = rule.get("message") or f"failed rule: {rule['rule']}"
        if "messageExpression" in rule:
            message = str(cel.evaluate(parse(rule["messageExpression"]), names))
    except UnsupportedRule as error:
        _log.warning("the emulated API does not know a rule of %s and lets it pass: %s", field or "the object", error)
        return
    except cel.EvaluationError as error:
        message = f"rule evaluation error: {error}"
    yield Cause(field or "<nil>", f"Invalid value: {message}", rule.get("reason", "FieldValueInvalid"))


def _mentions(node: Any, name: str) -> bool:
    if node == ("name", name):
        return True
    return isinstance(node, tuple) and any(_mentions(part, name) for part in node)


def too_costly(crd: Mapping[str, Any]) -> list[Cause]:
    """The causes for which the server refuses a CRD's rules as too costly."""
    versions = crd["spec"]["versions"]
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") or {} for version in versions]
    same = all(schema == schemas[0] for schema in schemas)
    causes: list[Cause] = []
    for index, schema in enumerate(schemas[:1] if same else schemas):
        root = "spec.validation.openAPIV3Schema" if same else f"spec.versions[{index}].schema.openAPIV3Schema"
        places = list(_costly(schema, root))
        for place in places:
            much = f"Forbidden: estimated rule cost exceeds budget by factor {_TRY}"
            total = (
                "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            )
            causes += [Cause(place, words, "FieldValueForbidden") for words in (much, total)]
        if places:
            words = "estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor"
            message = f"Forbidden: x-kubernetes-validations {words} {_TRY}"
            causes.append(Cause(root, message, "FieldValueForbidden"))
    return causes


def _costly(schema: Schema, path: str) -> Iterator[str]:
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        try:
            if _compares_optional(parse(rule["rule"]), schema.get("properties") or {}):
                yield f"{path}.x-kubernetes-validations[{index}].rule"
        except UnsupportedRule:
            continue
    for name, sub in (schema.get("properties") or {}).items():
        yield from _costly(sub, f"{path}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _costly(schema[name], f"{path}.{name}")


def _compares_optional(node: Any, properties: Mapping[str, Any]) -> bool:
    if not isinstance(node, tuple):
        return False
    if node[:1] == ("op",) and node[1] in ("==", "!="):
        for side in node[2:]:
            if side[:2] == ("method", "orValue") and side[2][0] == "select" and side[2][3]:
                return bool((properties.get(side[2][2]) or {}).get("type") == "string")
    return any(_compares_optional(part, properties) for part in node)
