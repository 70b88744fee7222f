"""The OpenAPI schemas of custom resources: defaults, pruning and validation. CEL rules are in `rules`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from kaito_testing.kube.errors import Cause
from kaito_testing.kube.shape import SchemaShape, item_key

__all__ = ["fill", "prune", "validate"]

Schema = dict[str, Any]
_IMPLICIT = ("apiVersion", "kind", "metadata")
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_END = re.compile(r"(?<!\\)[$](?![^\[]*\])")  # in Python, a newline may follow `$`
_NAMES = ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"), (list, "array"), (dict, "object"))


def fill(value: Any, schema: Schema) -> Any:
    """The value with the schema's defaults for absent fields."""
    if isinstance(value, dict):
        filled = dict(value)
        for name, sub in (schema.get("properties") or {}).items():
            if name not in filled and "default" in sub:
                filled[name] = json.loads(json.dumps(sub["default"]))
            if name in filled:
                if filled[name] is None and "default" in sub and not sub.get("nullable"):
                    filled[name] = json.loads(json.dumps(sub["default"]))
                filled[name] = fill(filled[name], sub)
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            known = schema.get("properties") or {}
            filled = {name: sub if name in known else fill(sub, more) for name, sub in filled.items()}
        return filled
    if isinstance(value, list):
        return [fill(item, schema.get("items") or {}) for item in value]
    return value


def prune(value: Any, schema: Schema, path: str = "") -> tuple[Any, list[str]]:
    """The value without the fields that the schema does not have, and the paths of those fields."""
    unknown: list[str] = []
    if isinstance(value, dict):
        if schema.get("x-kubernetes-preserve-unknown-fields") and not schema.get("properties"):
            return value, []
        known, more = schema.get("properties") or {}, schema.get("additionalProperties")
        implicit = _IMPLICIT if not path or schema.get("x-kubernetes-embedded-resource") else ()
        kept: dict[str, Any] = {}
        for name, sub in value.items():
            where = f"{path}.{name}" if path else name
            if name in implicit:
                kept[name] = sub
            elif name in known or isinstance(more, dict):
                kept[name], found = prune(sub, known.get(name) or more or {}, where)
                unknown += found
            elif more is True or schema.get("x-kubernetes-preserve-unknown-fields"):
                kept[name] = sub
            else:
                unknown.append(where)
        return kept, unknown
    if isinstance(value, list):
        items = []
        for index, item in enumerate(value):
            left, found = prune(item, schema.get("items") or {}, f"{path}[{index}]")
            items.append(left)
            unknown += found
        return items, unknown
    return value, []


def validate(obj: dict[str, Any], schema: Schema, old: dict[str, Any] | None = None) -> list[Cause]:
    """What is wrong with an object by its schema, without CEL rules.

    Args:
        obj: The object.
        schema: Its schema.
        old: The stored object, whose faults are accepted in unchanged parts, as a real server does.
    """
    body = {name: value for name, value in obj.items() if name not in _IMPLICIT}
    named = (schema.get("properties") or {}).get("metadata") or {}
    causes = [*_problems(obj.get("metadata") or {}, named, "metadata"), *_problems(body, schema, "")]
    if old is not None:
        causes = [cause for cause in causes if not _is_unchanged(cause, obj, old)]
    duplicates_only = all(cause.reason == "FieldValueDuplicate" for cause in causes)
    if causes and not duplicates_only and "x-kubernetes-validations" in json.dumps(schema):
        causes.append(
            Cause(
                "<nil>",
                "Invalid value: null: some validation rules were not checked because the object was invalid;"
                " correct the existing errors to complete validation",
            )
        )
    return causes


def _is_unchanged(cause: Cause, obj: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether the value that a cause names, up to the first list, is unchanged."""
    names = re.findall(r'"([^"]*)" must not', cause.message) if cause.field == "<nil>" else [cause.field]
    path = names[0].partition("[")[0].split(".") if names else []
    if cause.reason == "FieldValueRequired":
        path = path[:-1]
    was: Any = old
    is_: Any = obj
    for name in path:
        was, is_ = (part.get(name) if isinstance(part, dict) else None for part in (was, is_))
    return bool(path) and was == is_


def _type_name(value: Any) -> str:
    return next((name for kind, name in _NAMES if isinstance(value, kind)), "null")


def _has_type(value: Any, wanted: str) -> bool:
    if wanted in ("integer", "number") and isinstance(value, bool):
        return False
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[wanted])


def _problems(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    wanted = schema.get("type")
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or isinstance(value, bool):
            yield _type_problem(value, "integer,string", path)
        else:
            yield from _scalar_problems(value, schema, path)
        return
    if wanted and not _has_type(value, wanted):
        yield _type_problem(value, wanted, path)
        return
    yield from _scalar_problems(value, schema, path)
    if "not" in schema and not list(_problems(value, schema["not"], path)):
        yield Cause("<nil>", f'Invalid value: "": "{path}" must not validate the schema (not)')
    if isinstance(value, dict):
        for name in schema.get("required") or ():
            if name not in value:
                yield Cause(f"{path}.{name}" if path else name, "Required value", "FieldValueRequired")
        known, more = schema.get("properties") or {}, schema.get("additionalProperties")
        if len(value) > schema.get("maxProperties", len(value)):
            yield Cause(path, f"Too many: {len(value)}: must have at most {schema['maxProperties']} items")
        if len(value) < schema.get("minProperties", 0):
            message = f"{path} in body should have at least {schema['minProperties']} properties"
            yield Cause(path, f"Invalid value: {len(value)}: {message}")
        for name, sub in value.items():
            rule = known.get(name, more if isinstance(more, dict) else {})
            yield from _problems(sub, rule, f"{path}.{name}" if path else name)
    if isinstance(value, list):
        yield from _list_problems(value, schema, path)


def _type_problem(value: Any, wanted: str, path: str) -> Cause:
    found = _type_name(value)
    message = f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
    return Cause(path, message, "FieldValueTypeInvalid")


def _scalar_problems(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    shown = json.dumps(value)
    # In Python, True equals 1.
    if "enum" in schema and (value, type(value)) not in [(item, type(item)) for item in schema["enum"]]:
        allowed = ", ".join(json.dumps(item) for item in schema["enum"])
        yield Cause(path, f"Unsupported value: {shown}: supported values: {allowed}", "FieldValueNotSupported")
    if isinstance(value, str):
        if len(value) > schema.get("maxLength", len(value)):
            message = f"Too long: may not be more than {schema['maxLength']} bytes"
            yield Cause(path, message, "FieldValueTooLong")
        if len(value) < schema.get("minLength", 0):
            message = f"Invalid value: {shown}: {path} in body should be at least {schema['minLength']} chars long"
            yield Cause(path, message)
        if "pattern" in schema and not re.search(_END.sub(r"\\Z", schema["pattern"]), value):
            yield Cause(path, f"Invalid value: {shown}: {path} in body should match '{schema['pattern']}'")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            message = f"{path} in body should be greater than or equal to {schema['minimum']}"
            yield Cause(path, f"Invalid value: {shown}: {message}")
        if value > schema.get("maximum", value):
            message = f"{path} in body should be less than or equal to {schema['maximum']}"
            yield Cause(path, f"Invalid value: {shown}: {message}")


def _list_problems(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    if len(value) > schema.get("maxItems", len(value)):
        message = f"Too many: {len(value)}: must have at most {schema['maxItems']} items"
        yield Cause(path, message, "FieldValueTooMany")
    if len(value) < schema.get("minItems", 0):
        yield Cause(
            path, f"Invalid value: {len(value)}: {path} in body should have at least {schema['minItems']} items"
        )
    shape, seen = SchemaShape(schema), set()
    for index, item in enumerate(value):
        yield from _problems(item, schema.get("items") or {}, f"{path}[{index}]")
        key = item_key(item, shape)
        if key is not None and key in seen:
            yield Cause(f"{path}[{index}]", f"Duplicate value: {key[2:]}", "FieldValueDuplicate")
        seen.add(key)
