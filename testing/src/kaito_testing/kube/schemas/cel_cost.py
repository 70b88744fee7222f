"""What a CRD's rules cost at worst, as the API server reckons before it takes the CRD. No rule is evaluated here.

The cost of a rule is what one look at the largest value takes, times how often the value can occur in an object. Bounds
of the schema keep it down; without one, as much is assumed as fits into a request. What is not known here counts as
unbounded, so that the estimate may be too high and never too low.

Source: https://kubernetes.io/docs/reference/using-api/cel/#cel-validation-cost
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kaito_testing.kube.errors import Cause
from kaito_testing.kube.schemas.cel import UnsupportedRule, serialise
from kaito_testing.kube.schemas.cel_tree import Call, Constant, Fold, Ident, ListOf, Node, Select, read_tree

__all__ = ["MOST_PER_CRD", "MOST_PER_RULE", "RuleCost", "rule_costs", "too_costly"]

Schema = Mapping[str, Any]

MOST_PER_RULE, MOST_PER_CRD = 10_000_000, 100_000_000
_REQUEST_BYTES = 3 << 20
_TEXT, _REGEX = 0.1, 0.25  # of a unit for each character of a text that is gone through, and of a pattern
_SCALARS = ("boolean", "integer", "number")
_EQUALITY, _ORDER = ("_==_", "_!=_"), ("_<_", "_<=_", "_>_", "_>=_")


@dataclass(frozen=True, slots=True)
class RuleCost:
    """The cost of one rule. Attributes: path: of its schema. index: among the rules there. cost: in units, at worst."""

    path: str
    index: int
    cost: float


def rule_costs(schema: Schema, path: str, times: float = 1) -> Iterator[RuleCost]:
    """The costs of the rules in a schema.

    Args:
        schema: The schema.
        path: Its path, as the API server names it.
        times: How often its value can occur in an object.
    """
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        try:
            cost = _Estimate({"self": _Value(schema), "oldSelf": _Value(schema)}).cost(_tree(rule["rule"]))[0]
        except (UnsupportedRule, ValueError):
            cost = 0.0  # what the emulated API does not know it lets pass
        yield RuleCost(path, index, cost * times)
    for name, sub in (schema.get("properties") or {}).items():
        yield from rule_costs(sub, f"{path}.properties[{name}]", times)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), Mapping):
            yield from rule_costs(schema[name], f"{path}.{name}", times * _entries(schema))


def too_costly(crd: Mapping[str, Any]) -> list[Cause]:
    """The causes for which the server refuses a CRD's rules as too costly."""
    versions = crd["spec"]["versions"]
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") or {} for version in versions]
    same = all(schema == schemas[0] for schema in schemas)
    causes: list[Cause] = []
    for index, schema in enumerate(schemas[:1] if same else schemas):
        root = "spec.validation.openAPIV3Schema" if same else f"spec.versions[{index}].schema.openAPIV3Schema"
        costs = [
            (f"{cost.path}.x-kubernetes-validations[{cost.index}].rule", cost.cost) for cost in rule_costs(schema, root)
        ]
        causes += [
            _forbidden(place, _exceeds("estimated rule cost", cost, MOST_PER_RULE))
            for place, cost in costs
            if cost > MOST_PER_RULE
        ]
        total = sum(cost for _, cost in costs)
        if total > MOST_PER_CRD:
            words = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            causes += [_forbidden(place, words) for place, cost in costs if cost >= MOST_PER_CRD / 100]
            what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
            causes.append(_forbidden(root, _exceeds(what, total, MOST_PER_CRD)))
    return causes


def _exceeds(what: str, cost: float, limit: int) -> str:
    factor = cost / limit
    times = "more than 100x" if factor > 100 else f"{factor:.6f}x" if factor < 1.5 else f"{factor:.1f}x"
    hint = "try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings"
    return f"{what} exceeds budget by factor of {times} ({hint} are declared)"


def _forbidden(place: str, words: str) -> Cause:
    return Cause(place, f"Forbidden: {words}", "FieldValueForbidden")


def _tree(text: str) -> Node:
    return read_tree(serialise(text))


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of a value. Attributes: schema: where it is of the object. size: of one that the rule makes."""

    schema: Schema | None = None
    size: float = math.inf

    @property
    def largest(self) -> float:
        """Most characters or entries."""
        return self.size if self.schema is None else _largest(self.schema)


_SCALAR = _Value(size=1)
_UNKNOWN = _Value()


class _Estimate:
    """Reckons with a tree. Attributes: names: what is known of the variables."""

    def __init__(self, names: Mapping[str, _Value]) -> None:
        self._names = names

    def cost(self, node: Node) -> tuple[float, _Value]:
        """The worst cost of a node, and what is known of its value."""
        if isinstance(node, Constant):
            return 0, _Value(size=node.size)
        if isinstance(node, Ident):
            return 1, self._names.get(node.name, _UNKNOWN)
        if isinstance(node, ListOf):
            return 10 + sum(self.cost(item)[0] for item in node.items), _Value(size=len(node.items))
        if isinstance(node, Fold):
            return self._fold(node)
        if isinstance(node, Select):
            cost, owner = self.cost(node.operand)
            return (cost, _SCALAR) if node.asks else (cost + 1, _field(owner, node.field))
        return self._call(node)

    def _fold(self, fold: Fold) -> tuple[float, _Value]:
        cost, over = self.cost(fold.over)
        start, accumulator = self.cost(fold.start)
        inner = _Estimate({**self._names, fold.variable: _entry(over), fold.accumulator: accumulator})
        each = inner.cost(fold.condition)[0] + inner.cost(fold.step)[0]
        result = _Value(size=over.largest) if isinstance(fold.start, ListOf) else _SCALAR
        return cost + start + over.largest * each + inner.cost(fold.result)[0], result

    def _call(self, call: Call) -> tuple[float, _Value]:
        parts = [self.cost(argument) for argument in call.arguments]
        costs, values = [cost for cost, _ in parts], [value for _, value in parts]
        total, name = sum(costs), call.function
        if name in ("_&&_", "_||_"):
            return total, _SCALAR
        if name == "_?_:_":
            larger = max(values[1:], key=lambda value: value.largest)
            return costs[0] + max(costs[1:]), larger
        if name in _EQUALITY or name in _ORDER:
            compared = _units(_TEXT * min(value.largest for value in values))
            return total + (compared if name in _EQUALITY else max(1, compared)), _SCALAR
        if name == "@in":
            return total + (1 if _is_mapping(values[1]) else values[1].largest), _SCALAR
        if name == "matches":
            text = _units(_TEXT * (values[0].largest + 1))
            return total + text * _units(_REGEX * values[1].largest), _SCALAR
        if name in ("startsWith", "endsWith"):
            return total + _units(_TEXT * values[1].largest), _SCALAR
        if name == "contains":
            return total + math.prod(_units(_TEXT * value.largest) for value in values), _SCALAR
        if name == "_[_]":
            found = (values[0].schema or {}).get("additionalProperties")
            return total + 1, _Value(found) if _is_mapping(values[0]) else _entry(values[0])
        if name == "orValue":
            is_scalar = isinstance(call.arguments[1], Constant) and call.arguments[1].kind != "string"
            return total + 1, _SCALAR if is_scalar else _UNKNOWN
        if name in ("size", "!_", "-_", "@not_strictly_false", "hasValue", "_-_", "_*_", "_/_", "_%_"):
            return total + 1, _SCALAR
        if name == "_+_":
            sizes = sum(value.largest for value in values)
            return total + (1 if all(value is _SCALAR or value.size == 1 for value in values) else sizes), _Value(
                size=sizes
            )
        return total + 1, _UNKNOWN


def _units(cost: float) -> float:
    return cost if math.isinf(cost) else math.ceil(cost)


def _field(owner: _Value, name: str) -> _Value:
    schema = owner.schema or {}
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    found = properties.get(name) or (more if isinstance(more, Mapping) else None)
    return _Value(found) if found is not None else _UNKNOWN


def _is_mapping(value: _Value) -> bool:
    return isinstance((value.schema or {}).get("additionalProperties"), Mapping)


def _entry(owner: _Value) -> _Value:
    """An entry of a list; of a mapping a key, whose length the API server leaves out of account."""
    schema = owner.schema or {}
    if isinstance(schema.get("items"), Mapping):
        return _Value(schema["items"])
    return _Value(size=0) if "additionalProperties" in schema else _UNKNOWN


def _largest(schema: Schema) -> float:
    kind = schema.get("type")
    if kind == "string":
        if "maxLength" in schema:
            return float(4 * schema["maxLength"])  # bytes of as many characters
        return max(len(str(value)) for value in schema["enum"]) if schema.get("enum") else _REQUEST_BYTES - 2
    if kind == "array" or "additionalProperties" in schema:
        return _entries(schema)
    return 0 if kind in _SCALARS else math.inf


def _entries(schema: Schema) -> float:
    """Most entries of a list or mapping: its bound, or as many as a request can hold."""
    if schema.get("type") == "array":
        return float(schema.get("maxItems", (_REQUEST_BYTES - 2) // (_least_bytes(schema.get("items") or {}) + 1)))
    more = schema.get("additionalProperties") or {}
    return float(schema.get("maxProperties", (_REQUEST_BYTES - 2) // (_least_bytes(more) + 6)))


def _least_bytes(schema: Schema) -> int:
    """Fewest bytes of a value as JSON."""
    if schema.get("type") == "object" and "properties" in schema:
        required = [
            name for name in schema.get("required") or () if "default" not in schema["properties"].get(name, {})
        ]
        return 2 + sum(len(name) + 4 + _least_bytes(schema["properties"].get(name, {})) for name in required)
    return {"string": 2, "array": 2, "object": 2, "boolean": 4}.get(schema.get("type", ""), 1)
