"""Label and field selectors as predicates on objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kaito_core.api import matches
from kaito_testing.kube import errors

__all__ = ["Predicate", "both", "field_selector", "label_selector"]

Predicate = Callable[[Mapping[str, Any]], bool]

_SET_TERM = re.compile(r"^(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^)]*)\)$")
_EQUAL_TERM = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<op>==|=|!=)\s*(?P<value>\S*)$")


def label_selector(text: str) -> Predicate:
    """A predicate for a label selector such as "a=b,c!=d,e in (f,g),h,!i".

    Raises:
        ApiError: 400 if it cannot be parsed.
    """
    terms = re.split(r",(?![^(]*\))", text)
    selector = {"matchExpressions": [_expression(term.strip()) for term in terms if term.strip()]}
    return lambda obj: matches(selector, obj.get("metadata", {}).get("labels") or {})


def _expression(term: str) -> dict[str, Any]:
    """The requirement of a LabelSelector that a term of a selector's text stands for."""
    if found := _SET_TERM.match(term):
        values = [value.strip() for value in found["values"].split(",")]
        return {"key": found["key"], "operator": "In" if found["op"] == "in" else "NotIn", "values": values}
    if found := _EQUAL_TERM.match(term):
        operator = "NotIn" if found["op"] == "!=" else "In"
        return {"key": found["key"], "operator": operator, "values": [found["value"]]}
    if re.fullmatch(r"![^\s=!]+", term):
        return {"key": term[1:], "operator": "DoesNotExist"}
    if re.fullmatch(r"[^\s=!()]+", term):
        return {"key": term, "operator": "Exists"}
    raise errors.bad_request(f"unable to parse requirement: label selector term {term!r}")


def field_selector(text: str) -> Predicate:
    """A predicate for a field selector such as "metadata.name=x,spec.nodeName!=y"; it may name any field.

    Raises:
        ApiError: 400 if it cannot be parsed.
    """
    terms: list[tuple[list[str], str, bool]] = []
    for term in filter(None, (part.strip() for part in text.split(","))):
        found = _EQUAL_TERM.match(term)
        if not found:
            raise errors.bad_request(f"invalid field selector: term {term!r}")
        terms.append((found["key"].split("."), found["value"], found["op"] != "!="))
    return lambda obj: all((_field(obj, path) == value) is equal for path, value, equal in terms)


def _field(obj: Any, path: list[str]) -> str:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return "" if obj is None else str(obj)


def both(labels: str, fields: str) -> Predicate:
    """A predicate for a label selector and a field selector together; "" selects everything."""
    by_label, by_field = label_selector(labels), field_selector(fields)
    return lambda obj: by_label(obj) and by_field(obj)
