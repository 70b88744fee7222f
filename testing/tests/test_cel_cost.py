"""What CEL rules cost, beside what the API server's own estimate says (Kubernetes 1.36.1, its Go packages)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kaito_testing.kube.schemas.cel import serialise
from kaito_testing.kube.schemas.cel_cost import rule_costs, too_costly
from kaito_testing.kube.schemas.cel_tree import Call, Constant, Ident, ListOf, Select, read_tree

ENTRY = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string", "maxLength": 10}, "number": {"type": "integer"}},
}
PROPERTIES: dict[str, Any] = {
    "text": {"type": "string", "maxLength": 50},
    "free": {"type": "string"},
    "kind": {"type": "string", "enum": ["a", "long-one"]},
    "number": {"type": "integer"},
    "list": {"type": "array", "maxItems": 20, "items": ENTRY},
    "names": {"type": "array", "items": {"type": "string", "maxLength": 5}},
    "map": {"type": "object", "maxProperties": 8, "additionalProperties": {"type": "string", "maxLength": 3}},
}


def cost(*rules: str, under: dict[str, Any] | None = None) -> list[float]:
    entries = [{"rule": rule} for rule in rules]
    schema = {"type": "object", "properties": PROPERTIES, "x-kubernetes-validations": entries}
    return [found.cost for found in rule_costs({**under, "items": schema} if under else schema, "")]


@pytest.mark.parametrize(
    ("rule", "units"),
    [
        ("has(self.text)", 1),
        ("self.text == 'abc'", 3),
        ("self.text != self.free", 24),
        ("self.free == self.free", 314_577),
        ("self.number > 3", 3),
        ("self.kind == 'a'", 3),
        ("self.text in ['a', 'b', 'c']", 15),
        ("self.text.matches('^a+b$')", 44),
        ("self.text.startsWith('abcdefghijkl')", 4),
        ("self.free.contains('ab')", 314_575),
        ("size(self.list) < 3", 4),
        ("self.list.size() < 3", 4),
        ("self.list.all(a, a.number > 1)", 123),
        ("self.list.exists(a, a.name == 'x')", 143),
        ("self.list.all(a, self.list.exists_one(b, b.name == a.name))", 4143),
        ("self.names.all(a, a != 'x')", 5_242_878),
        ("self.map.all(k, k != 'x')", 35),
        ("self.map.all(k, self.map[k] != 'xyz')", 67),
        ("'x' in self.map", 3),
        ("self.list[0].name == 'x'", 5),
        ("!has(self.text) || self.text == 'a'", 5),
        ("has(self.text) ? self.text == 'a' : self.number == 1", 4),
        ("self.map == oldSelf.map", 5),
        ("self.list == oldSelf.list", 6),
        ("self.list.filter(a, a.number > 1).size() > 2", 335),
        ("self.number + 1 > 2", 4),
        ("self.?text.orValue('') == 'abc'", 4),
        ("self.?number.orValue(0) == 3", 4),
    ],
)
def test_costs_are_those_of_the_api_server(rule: str, units: int) -> None:
    assert cost(rule) == [units]


@pytest.mark.parametrize(
    ("rule", "units"),
    [("self.list.map(a, a.name).exists(b, b == 'x')", 394), ("[self.number, 3].exists(a, a == 3)", 23)],
)
def test_what_is_not_known_well_is_not_reckoned_too_low(rule: str, units: int) -> None:
    assert units <= cost(rule)[0] < 1.2 * units


def test_a_rule_costs_as_often_as_its_value_can_occur() -> None:
    once = cost("self.text == 'abc'")[0]
    assert cost("self.text == 'abc'", under={"type": "array", "maxItems": 7}) == [7 * once]
    (unbounded,) = cost("self.text == 'abc'", under={"type": "array"})
    assert unbounded == once * (((3 << 20) - 2) // 3), "as many empty objects as a request can hold"


def test_comparing_what_optional_fields_yield_has_no_bound() -> None:
    assert cost("self.?text.orValue('') == oldSelf.?text.orValue('')") == [math.inf]
    rule = {"rule": "self.?text.orValue('') == oldSelf.?text.orValue('')"}
    schema = {"type": "object", "properties": PROPERTIES, "x-kubernetes-validations": [rule]}
    messages = [
        cause.message for cause in too_costly({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}})
    ]
    assert [message.split(" (")[0] for message in messages] == [
        "Forbidden: estimated rule cost exceeds budget by factor of more than 100x",
        "Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
        "Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by"
        " factor of more than 100x",
    ]


def test_trees_of_every_kind_are_read() -> None:
    assert read_tree(serialise("self.a")) == Select(Ident("self"), "a", asks=False)
    assert read_tree(serialise("has(self.a)")) == Select(Ident("self"), "a", asks=True)
    assert read_tree(serialise("['ab', -3, 1.5, true, null]")) == ListOf(
        (Constant("string", 2), Constant("int"), Constant("double"), Constant("bool"), Constant("null"))
    )
    assert read_tree(serialise("'a'.matches('b')")) == Call("matches", (Constant("string"), Constant("string")))
