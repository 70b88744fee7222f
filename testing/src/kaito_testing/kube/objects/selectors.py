"""Label and field selectors: parsed once into a predicate on objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from kaito_testing.kube import errors

__all__ = ["Predicate", "both", "field_selector", "label_selector", "matches_labels"]

Predicate = Callable[[Mapping[str, Any]], bool]

_SET_TERM = re.compile(r"^(?P<key>\S+)\s+(?P<op>in|notin)\s*\((?P<values>[^)]*)\)$")
_EQUAL_TERM = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<op>==|=|!=)\s*(?P<value>\S*)$")


def label_selector(text: str) -> Predicate:
    """A predicate for a label selector such as "a=b,c!=d,e in (f,g),h,!i".

    Raises:
        ApiError: 400 where it cannot be parsed.
    """
    terms = [_label_term(term.strip()) for term in re.split(r",(?![^(]*\))", text) if term.strip()]
    return lambda obj: all(term(obj.get("metadata", {}).get("labels") or {}) for term in terms)


def _label_term(term: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _SET_TERM.match(term):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["op"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL_TERM.match(term):
        key, value = found["key"], found["value"]
        if found["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if re.fullmatch(r"![^\s=!]+", term):
        return lambda labels: term[1:] not in labels
    if re.fullmatch(r"[^\s=!()]+", term):
        return lambda labels: term in labels
    raise errors.bad_request(f"unable to parse requirement: label selector term {term!r}")


def field_selector(text: str) -> Predicate:
    """A predicate for a field selector such as "metadata.name=x,spec.nodeName!=y"; any field can be named.

    Raises:
        ApiError: 400 where it cannot be parsed.
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


def matches_labels(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector object (matchLabels, matchExpressions) matches; an absent one matches nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for term in selector.get("matchExpressions") or ():
        has, value = term["key"] in labels, labels.get(term["key"])
        holds = {
            "In": value in term.get("values", ()),
            "NotIn": value not in term.get("values", ()),
            "Exists": has,
            "DoesNotExist": not has,
        }
        if not holds[term["operator"]]:
            return False
    return True


def both(labels: str, fields: str) -> Predicate:
    """A predicate for a label selector and a field selector together; "" matches everything."""
    by_label, by_field = label_selector(labels), field_selector(fields)
    return lambda obj: by_label(obj) and by_field(obj)
