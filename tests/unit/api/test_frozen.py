"""What plugins are given cannot be changed."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from kaito_core.api import parse_workspace
from kaito_core.api.frozen import FrozenDict, frozen

DATA = {"a": {"b": [1, {"c": 2}]}}

EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "set": lambda d: d.__setitem__("x", 1),
    "delete": lambda d: d.__delitem__("a"),
    "or": lambda d: d.__ior__({"x": 1}),
    "clear": lambda d: d.clear(),
    "pop": lambda d: d.pop("a"),
    "popitem": lambda d: d.popitem(),
    "setdefault": lambda d: d.setdefault("x", 1),
    "update": lambda d: d.update(x=1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_no_edit_works(edit: str) -> None:
    data: dict[str, Any] = FrozenDict(frozen(DATA))
    with pytest.raises(TypeError, match="cannot be changed"):
        EDITS[edit](data)
    assert json.loads(json.dumps(data)) == DATA


def test_depth_is_frozen_and_copies_are_plain() -> None:
    data = frozen(DATA)
    with pytest.raises(TypeError):
        data["a"]["b"][1]["c"] = 3  # type: ignore[index]
    with pytest.raises(AttributeError):
        data["a"]["b"].append(1)
    mine = copy.deepcopy(data)
    mine["a"]["b"].append(3)
    assert (mine, json.loads(json.dumps(data))) == ({"a": {"b": [1, {"c": 2}, 3]}}, DATA)
    assert type(copy.copy(data)) is dict


def test_a_workspace_is_frozen_to_its_template_and_reads_as_before() -> None:
    workspace = parse_workspace(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "demo", "labels": {"a": "b"}},
            "inference": {"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}},
        }
    )
    kept = frozen(workspace)
    template = kept.inference.template
    assert template is not None
    for edit in (
        lambda: kept.metadata.labels.update(a="c"),
        lambda: template["spec"]["containers"][0].update(image="c"),
        lambda: kept.status.update(x=1),
    ):
        with pytest.raises(TypeError):
            edit()
    assert kept.model_dump(mode="json") == workspace.model_dump(mode="json")
