"""What `/v1/plugins` tells: the packages that bring recipes, working or not."""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from kaito_runtime.model.recipe import DEFAULT_RECIPE, RECIPE_GROUP
from kaito_runtime.model.recipes import find_recipes

__all__ = ["plugins_body"]


def plugins_body(entries: Iterable[EntryPoint] | None = None) -> dict[str, Any]:
    """Returns the runtime halves of the installed packages, in the words of `kaito plugins list -o json`.

    Args:
        entries: Entry points to read instead of the installed ones.
    """
    if entries is None:
        return _installed()
    found = sorted(entries, key=lambda entry: entry.name)
    failures = find_recipes(found).failures  # all together: one may have taken another's name
    return {"object": "list", "data": [_row(entry, failures.get(entry.name, "")) for entry in found]}


@cache  # what is installed does not change while a process runs, and a broken package is logged once
def _installed() -> dict[str, Any]:
    return plugins_body(entry_points(group=RECIPE_GROUP))


def _row(entry: EntryPoint, error: str) -> dict[str, Any]:
    recipes = [] if error else sorted(set(find_recipes([entry]).known) - {DEFAULT_RECIPE.name})
    return {
        "name": entry.name,
        "distribution": f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "",
        "module": entry.value,
        "state": "failed" if error else "loaded",
        "error": error,
        "recipes": recipes,
    }
