"""The Python rules and the shared table of Workspaces: every row gets its verdict, on creation and on edits."""

from __future__ import annotations

import pytest

from kaito_core.api.workspace.changes import document_change_faults, document_faults, forgiven
from kaito_core.errors import FieldError
from kaito_testing.cases.workspaces import CASES, Case, workspace_document


def faults(case: Case) -> list[FieldError]:
    return document_faults(case.new) if case.old is None else document_change_faults(case.old, case.new)


def test_rows_have_names_of_their_own() -> None:
    names = [case.id for case in CASES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_each_row_gets_its_verdict(case: Case) -> None:
    found = [error.field for error in faults(case)]
    assert bool(found) == bool(case.refused)
    for field in case.refused:
        # A fault names the field or a part of it, and nothing else.
        assert all(place == field or place.startswith((f"{field}.", f"{field}[")) for place in found), found


@pytest.mark.parametrize("case", [case for case in CASES if case.refused], ids=lambda case: case.id)
def test_each_message_says_more_than_no(case: Case) -> None:
    for error in faults(case):
        assert error.message.startswith(("must ", "is required", "is not "))
        assert len(str(error)) < 600


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.refused and case.old is None], ids=lambda case: case.id
)
def test_a_workspace_that_is_wrong_already_can_be_edited_elsewhere(case: Case) -> None:
    labelled = {**case.new, "metadata": {**case.new["metadata"], "labels": {"a": "b"}}}
    kept = [error for error in faults(case) if error.field.startswith(("inference", "resource"))]
    assert forgiven(kept, kept, case.new, labelled) == []


def test_what_an_edit_breaks_is_not_forgiven_beside_old_faults() -> None:
    old = workspace_document(resource__count=0)
    new = workspace_document(resource__count=0, inference__preset={"name": ""})
    assert [error.field for error in document_change_faults(old, new)] == ["inference.preset.name"]


def test_old_documents_of_any_shape_are_no_obstacle() -> None:
    for old in (None, [], "x", {}, {"inference": []}, {"resource": {"labelSelector": 3}}):
        assert document_change_faults(old, workspace_document()) == []
