"""The CRD and the shared table of Workspaces: schema and CEL rules give each row the verdict that Python gives it."""

from __future__ import annotations

from typing import Any

import pytest

from kaito_core.api.workspace.crd import workspace_crd
from kaito_core.api.workspace.rules import RULES
from kaito_testing.cases.workspaces import CASES, Case
from kaito_testing.kube.errors import Cause
from kaito_testing.kube.schemas import rules, schema

SCHEMA: dict[str, Any] = workspace_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def causes(case: Case) -> list[Cause]:
    """What the API server would object to, in its order: the schema first, then the rules."""
    old = schema.fill(schema.prune(case.old, SCHEMA)[0], SCHEMA) if case.old is not None else None
    new = schema.fill(schema.prune(case.new, SCHEMA)[0], SCHEMA)
    return schema.validate(new, SCHEMA, old) or list(rules.broken(new, old, SCHEMA))


def is_about(cause: Cause, field: str) -> bool:
    """Whether a cause names a field, a part of it, or what it lies in; of `not` only the message does."""
    place = cause.field.removesuffix("[]")
    longer, shorter = sorted((place, field), key=len, reverse=True)
    return longer == shorter or longer.startswith((f"{shorter}.", f"{shorter}[")) or f'"{field}"' in cause.message


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_each_row_gets_its_verdict(case: Case) -> None:
    found, refused = causes(case), () if case.only_python else case.refused
    assert bool(found) == bool(refused), found
    for field in refused:
        assert any(is_about(cause, field) for cause in found), found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.place}{rule.field}: {rule.rule[:40]}")
def test_each_rule_is_broken_by_a_row(rule: Any) -> None:
    assert any(rule.message in cause.message for case in CASES for cause in causes(case))


def test_no_rule_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    for case in CASES:
        causes(case)
    assert caplog.records == [], "the emulated API logs rules that it cannot evaluate and lets them pass"


def test_exceptions_of_the_crd_are_explained() -> None:
    reasons = {case.only_python for case in CASES if case.only_python}
    assert all(len(reason) > 20 for reason in reasons)
    assert not [case.id for case in CASES if case.only_python and not case.refused]
