"""Documents for tests of the vocabulary."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

BASE: dict[str, Any] = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": "demo"},
    "resource": {"labelSelector": {"matchLabels": {"apps": "demo"}}},
    "inference": {
        "preset": {"name": "falcon-7b"},
        "adapters": [{"source": {"name": "style", "image": "registry.example/style:1"}, "strength": "0.5"}],
    },
}


def _document(**changes: Any) -> dict[str, Any]:
    result = copy.deepcopy(BASE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place: Any = result
        for name in parents:
            place = place.setdefault(name, {})
        if value is ...:
            place.pop(last, None)
        else:
            place[last] = value
    return result


@pytest.fixture(scope="session")
def document() -> Callable[..., dict[str, Any]]:
    """Makes a small Workspace; changes are paths with "__" between the names, and `...` removes the field."""
    return _document
