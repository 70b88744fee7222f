import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from importlib_metadata import EntryPoint

from kaito_runtime import hookimpl
from kaito_runtime.errors import ModelLoadError
from kaito_runtime.model.recipe import DEFAULT_RECIPE, PROJECT, Recipe
from kaito_runtime.model.recipes import find_recipes, installed_recipes


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes an entry point of a module with these attributes."""

    def make(name: str, **attributes: Any) -> EntryPoint:
        module = ModuleType(f"recipes_of_{name}")
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return EntryPoint(name, module.__name__, PROJECT)

    yield make


def offering(*recipes: Any) -> Any:
    return hookimpl(lambda: recipes)


def test_recipe_is_chosen_by_name_or_by_architecture(package: Any) -> None:
    recipe = Recipe("special", architectures=("SpecialForCausalLM",))
    recipes = find_recipes([package("special", kaito_runtime_recipes=offering(recipe))])
    assert recipes.choose("special", ["Other"]) is recipe
    assert recipes.choose("default", ["SpecialForCausalLM"]) is recipe
    assert recipes.choose("default", ["Other"]) is DEFAULT_RECIPE
    assert [info.state for info in recipes.packages] == ["loaded"]


def test_unknown_recipe_lists_the_known_ones_and_the_broken_packages(package: Any) -> None:
    recipes = find_recipes([package("good", kaito_runtime_recipes=offering(Recipe("good"))), package("bad")])
    with pytest.raises(
        ModelLoadError, match=r"unknown recipe 'x', known: default, good; package 'bad' is left out: .*no func"
    ):
        recipes.choose("x", [])


@hookimpl
def explode() -> Any:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("attributes", "why"),
    [
        ({}, "has no function kaito_runtime_recipes"),
        ({"kaito_runtime_recipes": explode}, "RuntimeError: boom"),
        ({"kaito_runtime_recipes": offering("x")}, "must return a list of Recipe, got an item 'x'"),
        (
            {"kaito_runtime_recipes": offering(Recipe("default"))},
            "the recipe 'default' is provided by builtin and by bad",
        ),
        ({"kaito_runtime_recipes": offering(Recipe("fine"), 3)}, "must return a list of Recipe, got an item 3"),
    ],
)
def test_broken_package_is_left_out_as_a_whole(package: Any, attributes: Any, why: str) -> None:
    good = package("good", kaito_runtime_recipes=offering(Recipe("good")))
    recipes = find_recipes([package("bad", **attributes), good])
    assert set(recipes.known) == {"default", "good"}
    assert why in {info.name: info.error for info in recipes.packages}["bad"]


def test_module_that_does_not_import_is_left_out() -> None:
    recipes = find_recipes([EntryPoint("gone", "no_such_module", PROJECT)])
    (info,) = recipes.packages
    assert info.state == "failed" and "no_such_module" in info.error and "no_such_module" in info.traceback


def test_a_package_of_before_the_marker_still_works(package: Any) -> None:
    recipes = find_recipes([package("old", kaito_runtime_recipes=lambda: [Recipe("old")])])
    assert set(recipes.known) == {"default", "old"}
    (info,) = recipes.packages
    assert info.remarks == (
        "does not mark kaito_runtime_recipes with @kaito_runtime.hookimpl, as later versions will require",
    )


def test_packages_are_allowed_denied_and_refused_before_they_are_imported() -> None:
    entries = [EntryPoint(name, "no_such_module", PROJECT) for name in ("a", "b", "c")]
    entries.append(EntryPoint("a", "v9", f"{PROJECT}.api"))
    recipes = find_recipes(entries, allow=("a", "b"), deny=("b",))
    assert [(info.name, info.state, info.error) for info in recipes.packages] == [
        (
            "a",
            "failed",
            "asks for plugin API v9, this kaito-core has v1; install a version of it that fits",
        ),
        ("b", "skipped", "it is on the deny list (KAITO_PLUGINS_DENY)"),
        ("c", "skipped", "it is not on the allow list (KAITO_PLUGINS_ALLOW)"),
    ]


def test_the_environment_restricts_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAITO_PLUGINS_DENY", "falcon, ")
    states = {info.name: info.state for info in installed_recipes.__wrapped__().packages}
    assert states["falcon"] == "skipped" and states["llama"] == "loaded"
