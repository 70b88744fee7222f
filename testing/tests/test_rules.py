"""CEL rules: what expressions yield, when transition rules are asked, what counts as too costly."""

from __future__ import annotations

from typing import Any

import pytest
from _pytest.logging import LogCaptureFixture

from kaito_testing.kube.schemas import cel, rules

SELF = {"n": 3, "s": "abc", "l": [1, 2, 3], "m": {"k": "v"}, "items": [{"x": 1}, {"x": 2, "y": True}]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 == 7", True),
        ("(1 + 2) * 3", 9),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("!true || 1 < 2", True),
        ("has(self.n) && !has(self.missing)", True),
        ("has(self.m.k) ? self.m.k : 'none'", "v"),
        ("self.s.matches('^a.c$') && self.s.startsWith('a') && self.s.size() == 3", True),
        ("size(self.l) == 3 && self.l[1] == 2 && 3 in self.l", True),
        ("'k' in self.m && self.m['k'] == \"v\"", True),
        ("self.l.all(i, i > 0) && self.l.exists(i, i == 2) && self.l.exists_one(i, i > 2)", True),
        ("self.l.filter(i, i > 1).map(i, i * 2)", [4, 6]),
        ("self.items.exists(i, has(i.y) && i.y)", True),
        ("self.?missing.orValue('x')", "x"),
        ("self.?m.?k.orValue('x')", "v"),
        ("self.?m.hasValue()", True),
        ("false && self.missing", False),
        ("self.missing || true", True),
        ("double('1.5') > 1.0", True),
        (r"'a\'b' == r'a' + '\'b'", True),
        ("self.s in ['abc', 'd']", True),
    ],
)
def test_expressions(text: str, value: Any) -> None:
    assert cel.evaluate(text, {"self": SELF}) == value


@pytest.mark.parametrize("text", ["self.missing == 1", "self.l[9]", "self.n && true", "self.s < 1", "1 / 0"])
def test_expressions_without_a_value(text: str) -> None:
    with pytest.raises(cel.EvaluationError):
        cel.evaluate(text, {"self": SELF})


@pytest.mark.parametrize("text", ["self.n +", "self @ 1", "(1", "quantity('1') == self", "1 2"])
def test_what_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(cel.UnsupportedRule):
        cel.evaluate(text, {"self": SELF})


IMMUTABLE = {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "immutable"}]}
LIST = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "items": {"type": "object", "properties": {"name": {"type": "string"}, "fixed": IMMUTABLE}},
}


def test_transition_rules_compare_with_the_stored_value() -> None:
    schema = {"properties": {"a": IMMUTABLE}}
    assert list(rules.broken({"a": "x"}, None, schema)) == []
    assert list(rules.broken({"a": "x"}, {}, schema)) == []
    assert [cause.field for cause in rules.broken({"a": "x"}, {"a": "y"}, schema)] == ["a"]


def test_list_items_are_compared_by_key() -> None:
    schema = {"properties": {"l": LIST}}
    old = {"l": [{"name": "p", "fixed": "1"}, {"name": "q", "fixed": "2"}]}
    new = {"l": [{"name": "q", "fixed": "2"}, {"name": "p", "fixed": "9"}]}
    assert [cause.field for cause in rules.broken(new, old, schema)] == ["l[1].fixed"]


def test_a_rule_that_is_not_known_lets_pass_and_is_logged(caplog: LogCaptureFixture) -> None:
    schema = {"x-kubernetes-validations": [{"rule": "quantity(self).isGreaterThan(1)"}]}
    assert list(rules.broken("1", None, schema)) == []
    assert "cannot evaluate a rule" in caplog.text
