"""Finding recipes: reads the entry-point group `kaito_runtime`, and keeps a broken package from stopping the server."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from kaito_runtime.errors import ModelLoadError
from kaito_runtime.model.recipe import DEFAULT_RECIPE, RECIPE_GROUP, RECIPE_HOOK, Recipe

__all__ = ["Recipes", "find_recipes"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipes:
    """Every recipe that could be read, and why the others could not.

    Attributes:
        known: Recipes by name, "default" included.
        failures: What is wrong, by entry-point name.
    """

    known: Mapping[str, Recipe]
    failures: Mapping[str, str]

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
            broken = "".join(f"; package '{entry}' is broken: {why}" for entry, why in self.failures.items())
            raise ModelLoadError(
                f"model.recipe: there is no recipe '{name}', known: {', '.join(sorted(self.known))}{broken}"
            )
        wanted = set(architectures)
        matching = (recipe for recipe in self.known.values() if wanted.intersection(recipe.architectures))
        return next(matching, DEFAULT_RECIPE)


def find_recipes(entries: Iterable[EntryPoint] | None = None) -> Recipes:
    """Returns the recipes of the installed packages.

    Args:
        entries: Entry points to read instead of the installed ones.
    """
    known = {DEFAULT_RECIPE.name: DEFAULT_RECIPE}
    failures: dict[str, str] = {}
    for entry in sorted(entry_points(group=RECIPE_GROUP) if entries is None else entries, key=lambda e: e.name):
        try:
            offered = _offered(entry)
            if taken := sorted({recipe.name for recipe in offered} & set(known)):
                raise ValueError(f"recipe names are taken: {', '.join(taken)}")
        except Exception as error:  # a package of somebody else's: whatever it raises is its own failure
            failures[entry.name] = f"{type(error).__name__}: {error}"
            log.warning("recipes of '%s' (%s) are left out: %s", entry.name, entry.value, failures[entry.name])
            continue
        known.update((recipe.name, recipe) for recipe in offered)
    return Recipes(known, failures)


def _offered(entry: EntryPoint) -> list[Recipe]:
    module = entry.load()
    hook = getattr(module, RECIPE_HOOK, None)
    if hook is None:
        raise TypeError(f"{entry.value} has no function {RECIPE_HOOK}()")
    offered = list(hook())
    for recipe in offered:
        if not isinstance(recipe, Recipe):
            raise TypeError(f"{RECIPE_HOOK}() returned {recipe!r}, which is no Recipe")
    return offered
