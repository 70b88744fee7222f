"""Parsing what nobody would write: a Workspace comes out, or InvalidWorkspaceError, and never another exception."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito_core.api import Workspace, parse_workspace
from kaito_core.errors import InvalidWorkspaceError

Make = Callable[..., dict[str, Any]]

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


@settings(max_examples=400, deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(PATHS), VALUES), min_size=1, max_size=4))
def test_any_document_parses_or_is_refused_politely(
    document: Make, changes: list[tuple[tuple[str | int, ...], object]]
) -> None:
    bad = document(inference__blends=[{"name": "mix", "strengths": {"style": 1}}])
    for path, value in changes:
        bad = replaced(bad, path, value)
    try:
        workspace = parse_workspace(bad)
    except InvalidWorkspaceError as error:
        assert error.errors
        assert all(fault.message for fault in error.errors)
        str(error).encode(errors="backslashreplace")
    else:
        assert isinstance(workspace, Workspace)
        # What parsed can be planned with: every reference is printable and hashable.
        for index, entry in enumerate(workspace.inference.adapters):
            assert -10 <= entry.strength <= 10
            assert entry.ref(index).folder.startswith(entry.name)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_any_value_parses_or_is_refused_politely(value: object) -> None:
    with pytest.raises(InvalidWorkspaceError):
        parse_workspace(value)
