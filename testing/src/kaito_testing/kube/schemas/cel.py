"""Evaluates CEL expressions of validation rules on JSON values.

`cel-expr-python`, the CEL project's own runtime, does the work. This module adds Kubernetes' dialect: its variables,
optional fields, strings and some of its functions; others raise `UnsupportedRule`. Expressions are not checked against
the types of a schema: every variable is dynamic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings

__all__ = ["EvaluationError", "UnsupportedRule", "compile_problem", "evaluate", "mentions"]


class EvaluationError(Exception):
    """The expression has no value, e.g. since a field is absent."""


class UnsupportedRule(Exception):
    """The expression is not CEL, or uses a function that is not emulated."""


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """The value of an expression.

    Args:
        text: The expression.
        names: The values of `self` and `oldSelf`.

    Raises:
        EvaluationError: It has none.
        UnsupportedRule: It cannot be compiled, or takes more steps than the runtime allows.
    """
    try:
        value = _compiled(text).eval(data=dict(names))
    except RuntimeError as error:
        raise UnsupportedRule(f"{text!r}: {error}") from error
    result = value.plain_value()
    if value.type() == cel.Type.ERROR:
        raise EvaluationError(str(result))
    return result


@lru_cache(maxsize=1024)
def mentions(text: str, name: str) -> bool:
    """Whether an expression uses a variable."""
    return re.search(rf"(?<![\w.]){name}\b", re.sub(r"'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"", "''", text)) is not None


def compile_problem(text: str) -> str:
    """Why an expression is not CEL, "" if it is. An unknown function is not a problem: a server may have it."""
    try:
        _compiled(text)
    except UnsupportedRule as error:
        unknown = re.findall(r"undeclared reference to '(\w+)'", str(error))
        calls = all(re.search(rf"\b{name}\s*[.(]", text) for name in unknown)
        return "" if unknown and calls and "Syntax error" not in str(error) else str(error)
    return ""


@lru_cache(maxsize=1024)
def _compiled(text: str) -> cel.Expression:
    try:
        return _environment().compile(text)
    except RuntimeError as error:
        raise UnsupportedRule(f"{text!r}: {error}") from error


@cache
def _environment() -> cel.Env:
    text, anything = cel.Type.STRING, cel.Type.DYN
    items = cel.Type.List(anything)

    def method(name: str, implementation: Any, result: cel.Type, *parameters: cel.Type) -> cel.FunctionDecl:
        overload = cel.Overload(f"kubernetes_{name}", result, list(parameters), True, implementation)
        return cel.FunctionDecl(name, [overload])

    return cel.NewEnv(
        variables={"self": anything, "oldSelf": anything},
        extensions=[ext_optional.ExtOptional(), ext_strings.ExtStrings()],
        functions=[
            method("find", _find, text, text, text),
            method("isSorted", lambda values: values == sorted(values), cel.Type.BOOL, items),
            method("max", max, anything, items),
            method("min", min, anything, items),
            method("sum", sum, anything, items),
        ],
    )


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""
