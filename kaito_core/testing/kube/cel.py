"""Evaluates the part of CEL that validation rules of CRDs use, on JSON values.

Known: literals, fields, indices, operators, `has`, `size`, conversions, the list macros, common string methods and
optional fields. What is not known raises `UnsupportedRule`. Types are not checked beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kaito_core.testing.kube.cel_syntax import Node, UnsupportedRule

__all__ = ["EvaluationError", "evaluate"]

_MACROS = ("all", "exists", "exists_one", "filter", "map")


class EvaluationError(Exception):
    """The expression has no value, e.g. because a field is absent."""


@dataclass(frozen=True, slots=True)
class _Optional:
    """An optional value; `present` tells whether there is one."""

    present: bool
    value: Any = None


def evaluate(node: Node, names: Mapping[str, Any]) -> Any:
    """The value of a parsed expression.

    Args:
        node: What `parse` returned.
        names: Values of variables, e.g. `self` and `oldSelf`.

    Raises:
        EvaluationError: Where it has none.
        UnsupportedRule: For unknown functions.
    """
    kind = node[0]
    if kind == "value":
        return node[1]
    if kind == "name":
        if node[1] not in names:
            raise UnsupportedRule(f"unknown name {node[1]!r}")
        return names[node[1]]
    if kind == "list":
        return [evaluate(item, names) for item in node[1]]
    if kind == "if":
        return evaluate(node[2] if _truth(evaluate(node[1], names)) else node[3], names)
    if kind == "unary":
        value = evaluate(node[2], names)
        return not _truth(value) if node[1] == "!" else -value
    if kind == "op":
        return _logic(node, names) if node[1] in ("&&", "||") else _operate(node, names)
    if kind == "select":
        return _field(evaluate(node[1], names), node[2], optional=node[3])
    if kind == "index":
        return _field(evaluate(node[1], names), evaluate(node[2], names), optional=node[3])
    if kind == "call":
        return _call(node[1], node[2], names)
    return _method(node, names)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise EvaluationError(f"no such overload: {value!r} is not a boolean")
    return value


def _logic(node: Node, names: Mapping[str, Any]) -> bool:
    """`&&` and `||` have a value as soon as one side decides, even where the other side has none."""
    decisive = node[1] == "||"
    failure: EvaluationError | None = None
    for side in node[2:]:
        try:
            if _truth(evaluate(side, names)) is decisive:
                return decisive
        except EvaluationError as error:
            failure = error
    if failure is not None:
        raise failure
    return not decisive


_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: int(a / b) if isinstance(a, int) and isinstance(b, int) else a / b,
    "%": lambda a, b: a - b * int(a / b),
}


def _operate(node: Node, names: Mapping[str, Any]) -> Any:
    left, right = evaluate(node[2], names), evaluate(node[3], names)
    try:
        return _OPERATORS[node[1]](left, right)
    except (TypeError, ZeroDivisionError) as error:
        raise EvaluationError(f"{left!r} {node[1]} {right!r}: {error}") from error


def _field(value: Any, key: Any, *, optional: bool) -> Any:
    chained = isinstance(value, _Optional)
    if chained:
        if not value.present:
            return value
        value = value.value
    try:
        found = value[key]
    except (KeyError, IndexError, TypeError) as error:
        if optional or chained:
            return _Optional(False)
        raise EvaluationError(f"no such key: {key}") from error
    return _Optional(True, found) if optional or chained else found


def _call(name: str, arguments: tuple[Node, ...], names: Mapping[str, Any]) -> Any:
    if name == "has" and len(arguments) == 1 and arguments[0][0] == "select":
        owner = evaluate(arguments[0][1], names)
        return isinstance(owner, dict) and arguments[0][2] in owner
    function = _FUNCTIONS.get(name)
    if function is None or len(arguments) != 1:
        raise UnsupportedRule(f"unknown function {name}()")
    value = evaluate(arguments[0], names)
    try:
        return function(value)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"{name}({value!r}): {error}") from error


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "size": len,
    "int": int,
    "double": float,
    "string": lambda value: str(value).lower() if isinstance(value, bool) else str(value),
}
_METHODS: dict[str, Callable[..., Any]] = {
    "size": len,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": lambda text, part: part in text,
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
    "find": lambda text, pattern: found[0] if (found := re.search(pattern, text)) else "",
    "lowerAscii": str.lower,
    "upperAscii": str.upper,
    "trim": str.strip,
    "split": str.split,
    "replace": str.replace,
    "join": lambda items, glue="": glue.join(items),
    "min": min,
    "max": max,
    "sum": sum,
}


def _method(node: Node, names: Mapping[str, Any]) -> Any:
    _, name, owner_node, arguments = node
    owner = evaluate(owner_node, names)
    if isinstance(owner, _Optional):
        if name == "hasValue":
            return owner.present
        if name == "orValue":
            return owner.value if owner.present else evaluate(arguments[0], names)
        if name == "value" and owner.present:
            return owner.value
        raise EvaluationError("optional.none() dereference") if name == "value" else UnsupportedRule(name)
    if name in _MACROS and len(arguments) == 2 and arguments[0][0] == "name":
        return _macro(name, owner, arguments[0][1], arguments[1], names)
    method = _METHODS.get(name)
    if method is None:
        raise UnsupportedRule(f"unknown method {name}()")
    try:
        return method(owner, *(evaluate(argument, names) for argument in arguments))
    except (TypeError, ValueError, AttributeError) as error:
        raise EvaluationError(f"{owner!r}.{name}(): {error}") from error


def _macro(name: str, owner: Any, variable: str, body: Node, names: Mapping[str, Any]) -> Any:
    results = [(item, evaluate(body, {**names, variable: item})) for item in owner]
    if name == "map":
        return [result for _, result in results]
    kept = [item for item, result in results if _truth(result)]
    if name == "filter":
        return kept
    if name == "exists_one":
        return len(kept) == 1
    return len(kept) == len(results) if name == "all" else bool(kept)
