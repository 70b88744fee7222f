"""Parsing what nobody would write: a Workspace comes out, or InvalidWorkspaceError, and never another exception."""

import contextlib
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import property_test
from kaito_core.api import Workspace, parse_workspace
from kaito_core.api.workspace.changes import document_change_faults
from kaito_core.api.workspace.crd import workspace_crd
from kaito_core.errors import InvalidWorkspaceError
from kaito_testing.kube.schemas import rules, schema

Make = Callable[..., dict[str, Any]]
SCHEMA: dict[str, Any] = workspace_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

# Any YAML value, and documents that are almost Workspaces: a valid one with one to four places replaced.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["0.5", "falcon-7b", "https://a.example/x", "file:x", "base", "style", "-1e3", "Exists"])
    | st.binary(max_size=4)
    | st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=6) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)
PATHS: list[tuple[str | int, ...]] = [
    ("metadata",),
    ("metadata", "name"),
    ("metadata", "annotations"),
    ("metadata", "generation"),
    ("resource",),
    ("resource", "count"),
    ("resource", "instanceType"),
    ("resource", "preferredNodes"),
    ("resource", "labelSelector"),
    ("resource", "labelSelector", "matchLabels"),
    ("resource", "labelSelector", "matchExpressions"),
    ("inference",),
    ("inference", "preset"),
    ("inference", "preset", "presetOptions"),
    ("inference", "template"),
    ("inference", "adapters"),
    ("inference", "adapters", 0),
    ("inference", "adapters", 0, "strength"),
    ("inference", "adapters", 0, "digest"),
    ("inference", "adapters", 0, "source"),
    ("inference", "adapters", 0, "source", "name"),
    ("inference", "adapters", 0, "source", "urls"),
    ("inference", "adapters", 0, "source", "uri"),
    ("inference", "adapters", 0, "source", "volumeSource"),
    ("inference", "blends"),
    ("status",),
    ("surprise",),
    ("apiVersion",),
]


def replaced(base: Any, path: tuple[str | int, ...], value: object) -> Any:
    """Returns a copy with a value at a path; where an earlier replacement took the path away, the copy alone."""
    result = place = copy.deepcopy(base)
    for part in path[:-1]:
        try:
            place = place[part]
        except (KeyError, IndexError, TypeError):
            return result
    with contextlib.suppress(IndexError, TypeError):
        place[path[-1]] = value
    return result


CHANGES = st.lists(st.tuples(st.sampled_from(PATHS), VALUES), min_size=1, max_size=4)


def changed(base: Any, changes: list[tuple[tuple[str | int, ...], object]]) -> Any:
    for path, value in changes:
        base = replaced(base, path, value)
    return base


def base_document(document: Make) -> dict[str, Any]:
    return document(inference__blends=[{"name": "mix", "strengths": {"style": 1}}])


@property_test(examples=200)
@given(changes=CHANGES)
def test_any_document_parses_or_is_refused_politely(document: Make, changes: Any) -> None:
    """A document parses, and can be planned with, or is refused with the fields at fault."""
    bad = changed(base_document(document), changes)
    try:
        workspace = parse_workspace(bad)
    except InvalidWorkspaceError as error:
        assert error.errors
        assert all(fault.message for fault in error.errors)
        str(error).encode(errors="backslashreplace")
    else:
        assert isinstance(workspace, Workspace)
        # What parsed can be planned with: every reference is printable and hashable.
        for entry in workspace.inference.adapters:
            assert -10 <= entry.strength <= 10
            assert entry.ref("inference.adapters[0]").folder.startswith(entry.name)


@property_test(examples=200)
@given(before=CHANGES, after=CHANGES)
def test_any_edit_gets_a_verdict(document: Make, before: Any, after: Any) -> None:
    """Whatever is stored, an edit gets a verdict with words, and an edit that changes nothing is accepted."""
    old, new = changed(base_document(document), before), changed(base_document(document), after)
    for fault in document_change_faults(old, new):
        assert fault.message
    assert [fault for fault in document_change_faults(old, old) if "must not change" not in fault.message] == []


@given(VALUES)
def test_any_value_parses_or_is_refused_politely(value: object) -> None:
    with pytest.raises(InvalidWorkspaceError):
        parse_workspace(value)


@property_test(examples=200)
@given(changes=CHANGES)
def test_python_accepts_what_the_crd_accepts_with_listed_exceptions(document: Make, changes: Any) -> None:
    """The two sets of rules agree on documents that nobody thought of, not on the table's alone."""
    made = changed(base_document(document), changes)
    try:
        as_sent = json.loads(json.dumps(made, allow_nan=False))
    except (TypeError, ValueError):
        return  # JSON has no such value, so no API server sees it
    if not isinstance(as_sent, dict) or not isinstance(as_sent.get("metadata"), dict) or "status" in as_sent:
        return  # the API server checks these itself
    named = {"name": as_sent["metadata"].get("name")}
    as_sent = without_nulls({**as_sent, "metadata": named})
    try:
        parse_workspace(as_sent)
        faults: list[str] = []
    except InvalidWorkspaceError as error:
        faults = [fault.field for fault in error.errors if not is_said_by_python_alone(fault.field, fault.message)]
        if not faults:
            return
    kept = schema.fill(schema.prune(as_sent, SCHEMA)[0], SCHEMA)
    refused = schema.validate(kept, SCHEMA) or list(rules.broken(kept, None, SCHEMA))
    assert bool(refused) == bool(faults), (refused, faults)


def is_said_by_python_alone(field: str, message: str) -> bool:
    """What the table of cases says too, unknown fields and adapters of blends, and what an API server checks itself."""
    return (
        "is not a field of a Workspace" in message
        or "must name an adapter" in message
        or field in ("apiVersion", "metadata.name", "metadata")
        or "levels deep" in message
    )


def without_nulls(value: Any) -> Any:
    """A document as the server keeps it: nulls of fields that may not be null are dropped."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
