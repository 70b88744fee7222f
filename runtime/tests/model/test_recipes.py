import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

from kaito_runtime.errors import ModelLoadError
from kaito_runtime.model.recipe import DEFAULT_RECIPE, RECIPE_GROUP, Recipe
from kaito_runtime.model.recipes import find_recipes


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes an entry point of a module with these attributes."""

    def make(name: str, **attributes: Any) -> EntryPoint:
        module = ModuleType(f"recipes_of_{name}")
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return EntryPoint(name, module.__name__, RECIPE_GROUP)

    yield make


def offering(*recipes: Any) -> Any:
    return lambda: recipes


def test_recipe_is_chosen_by_name_or_by_architecture(package: Any) -> None:
    recipe = Recipe("special", architectures=("SpecialForCausalLM",))
    recipes = find_recipes([package("special", kaito_runtime_recipes=offering(recipe))])
    assert recipes.choose("special", ["Other"]) is recipe
    assert recipes.choose("default", ["SpecialForCausalLM"]) is recipe
    assert recipes.choose("default", ["Other"]) is DEFAULT_RECIPE
    assert recipes.failures == {}


def test_unknown_recipe_lists_the_known_ones_and_the_broken_packages(package: Any) -> None:
    recipes = find_recipes([package("good", kaito_runtime_recipes=offering(Recipe("good"))), package("bad")])
    with pytest.raises(
        ModelLoadError, match=r"no recipe 'x', known: default, good; package 'bad' is broken: .*no func"
    ):
        recipes.choose("x", [])


def explode() -> Any:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({}, "has no function kaito_runtime_recipes"),
        ({"kaito_runtime_recipes": explode}, "RuntimeError: boom"),
        ({"kaito_runtime_recipes": offering("x")}, "'x', which is no Recipe"),
        ({"kaito_runtime_recipes": offering(Recipe("default"))}, "names are taken: default"),
        ({"kaito_runtime_recipes": offering(Recipe("fine"), 3)}, "3, which is no Recipe"),
    ],
)
def test_broken_package_is_left_out_as_a_whole(package: Any, attributes: Any, why: str) -> None:
    good = package("good", kaito_runtime_recipes=offering(Recipe("good")))
    recipes = find_recipes([package("bad", **attributes), good])
    assert set(recipes.known) == {"default", "good"}
    assert why in recipes.failures["bad"]


def test_module_that_does_not_import_is_left_out() -> None:
    recipes = find_recipes([EntryPoint("gone", "no_such_module", RECIPE_GROUP)])
    assert "no_such_module" in recipes.failures["gone"]
