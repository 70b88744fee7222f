"""Validation rules (`x-kubernetes-validations`) of custom resources: which of them an object breaks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from kaito_testing.kube.errors import Cause
from kaito_testing.kube.schemas import cel
from kaito_testing.kube.shape import SchemaShape, item_key

__all__ = ["broken"]

_log = logging.getLogger(__name__)

Schema = Mapping[str, Any]


def broken(value: Any, old: Any, schema: Schema, path: str = "") -> Iterator[Cause]:
    """Finds the rules that a value breaks.

    Args:
        value: The value.
        old: The stored value, None for a new one; then transition rules do not apply.
        schema: Its schema.
        path: Its path in the object.
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
        is_transition = cel.mentions(rule["rule"], "oldSelf")
        # Unchanged values pass, even if the rule is newer than the object.
        if (old is None) if is_transition else (old == value):
            return
        if cel.evaluate(rule["rule"], names) is True:
            return
        message = rule.get("message") or f"failed rule: {rule['rule']}"
        if "messageExpression" in rule:
            message = str(cel.evaluate(rule["messageExpression"], names))
    except cel.UnsupportedRule as error:
        _log.warning("the emulated API cannot evaluate a rule of %s and ignores it: %s", field or "the object", error)
        return
    except cel.EvaluationError as error:
        message = f"rule evaluation error: {error}"
    yield Cause(field or "<nil>", f"Invalid value: {message}", rule.get("reason", "FieldValueInvalid"))
