"""The recipes of the installed packages, loaded as the operator loads its plugins: a broken package stops no server."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pluggy
from importlib_metadata import EntryPoint

from kaito_core.plugins.candidates import find_candidates
from kaito_core.plugins.info import PluginInfo
from kaito_core.plugins.loader import BUILTIN, PluginLoader, checked
from kaito_core.plugins.project import HookProject
from kaito_runtime import hookimpl
from kaito_runtime.errors import ModelLoadError
from kaito_runtime.model import recipe as specs
from kaito_runtime.model.recipe import API_VERSION, DEFAULT_RECIPE, PROJECT, Recipe

__all__ = ["RUNTIME", "Recipes", "find_recipes", "installed_recipes"]

log = logging.getLogger(__name__)

# Packages of before there was a marker are called as they are.
RUNTIME = HookProject(PROJECT, specs, API_VERSION, "kaito_runtime.hookimpl", calls_unmarked=True)


@dataclass(frozen=True, slots=True)
class Recipes:
    """Every recipe that could be read, and the packages that were looked at.

    Attributes:
        known: Recipes by name, "default" included.
        packages: Packages with a runtime half, working or not.
    """

    known: Mapping[str, Recipe]
    packages: tuple[PluginInfo, ...] = ()

    def choose(self, name: str, architectures: Iterable[str]) -> Recipe:
        """Returns the recipe for a model.

        Args:
            name: What the ServingConfig asks for; "default" takes the first recipe made for the architecture.
            architectures: Class names of the model.

        Raises:
            ModelLoadError: No recipe has that name; known ones and broken packages are listed.
        """
        if name in self.known and name != DEFAULT_RECIPE.name:
            return self.known[name]
        if name != DEFAULT_RECIPE.name:
            broken = "".join(
                f"; package '{info.name}' is left out: {info.error}" for info in self.packages if info.state != "loaded"
            )
            raise ModelLoadError(
                f"model.recipe: unknown recipe '{name}', known: {', '.join(sorted(self.known))}{broken}"
            )
        wanted = set(architectures)
        matching = (recipe for recipe in self.known.values() if wanted.intersection(recipe.architectures))
        return next(matching, DEFAULT_RECIPE)


@dataclass(frozen=True, slots=True)
class _Records:
    recipes: tuple[Recipe, ...]

    def names(self) -> list[tuple[str, str]]:
        return [("recipe", recipe.name) for recipe in self.recipes]


class _Builtin:
    """What the runtime brings itself."""

    @hookimpl
    def kaito_runtime_recipes(self) -> Iterable[Recipe]:
        return (DEFAULT_RECIPE,)


@cache  # what is installed does not change while a process runs, and a broken package is logged once
def installed_recipes() -> Recipes:
    """Returns the recipes of the installed packages, which KAITO_PLUGINS_ALLOW and KAITO_PLUGINS_DENY may restrict."""
    return find_recipes(allow=_names("KAITO_PLUGINS_ALLOW"), deny=_names("KAITO_PLUGINS_DENY"))


def find_recipes(
    entries: Iterable[EntryPoint] | None = None, *, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()
) -> Recipes:
    """Returns the recipes of packages.

    Args:
        entries: Entry points to read instead of those of the installed packages.
        allow: Entry points to load; empty: all.
        deny: Entry points never to load.
    """
    loader = PluginLoader(RUNTIME, _collect, allow=allow, deny=deny)
    found = [loader.register(_Builtin(), BUILTIN)]
    found += filter(None, map(loader.load, find_candidates(RUNTIME, entries=entries)))
    for info in loader.infos:
        if info.state == "failed":
            log.warning("recipes of %s are left out: %s", info, info.error)
    known = {recipe.name: recipe for records in found for recipe in records.recipes}
    return Recipes(known, tuple(info for info in loader.infos if info.name != BUILTIN))


def _collect(hooks: pluggy.HookRelay) -> _Records:
    answers: list[Any] = hooks.kaito_runtime_recipes()
    if not answers:
        raise TypeError("has no function kaito_runtime_recipes")
    return _Records(tuple(recipe for answer in answers for recipe in checked("kaito_runtime_recipes", answer, Recipe)))


def _names(variable: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in os.environ.get(variable, "").split(",") if name.strip())
