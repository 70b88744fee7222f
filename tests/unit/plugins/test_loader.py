"""The plugins of any project: in which order pluggy calls them, one at a time, and what they may leave out."""

from types import ModuleType
from typing import Any

import pluggy
import pytest
from importlib_metadata import EntryPoint

from kaito_core.errors import PluginError
from kaito_core.plugins.candidates import find_candidates
from kaito_core.plugins.loader import PluginLoader
from kaito_core.plugins.project import HookProject

hookspec, hookimpl = pluggy.HookspecMarker("zoo"), pluggy.HookimplMarker("zoo")


class Nothing:
    """A plugin's records in a project whose hooks bring none."""

    def names(self) -> list[tuple[str, str]]:
        return []


def project(version: int = 1, *, calls_unmarked: bool = False) -> HookProject:
    specs = ModuleType("zoo_hooks")

    @hookspec
    def zoo_sounds(animal: str) -> Any:
        """Every plugin's answer counts."""

    @hookspec(firstresult=True)
    def zoo_home(animal: str) -> Any:
        """The first answer counts."""

    vars(specs).update(zoo_sounds=zoo_sounds, zoo_home=zoo_home)
    return HookProject("zoo", specs, version, "zoo.hookimpl", calls_unmarked)


def loader(**options: Any) -> PluginLoader[Nothing]:
    return PluginLoader(project(**options), lambda hooks: Nothing())


def plugin(answer: Any, **options: Any) -> object:
    def sounds(animal: str) -> Any:
        return answer(animal)

    return type("Plugin", (), {name: staticmethod(hookimpl(**options)(sounds)) for name in ("zoo_sounds", "zoo_home")})


def fail(animal: str) -> str:
    raise RuntimeError(animal)


def test_plugins_are_asked_in_pluggys_order() -> None:
    found = loader()
    for name, options in {
        "last": {"trylast": True},
        "early": {},
        "late": {},
        "first": {"tryfirst": True},
    }.items():
        found.register(plugin(lambda animal, name=name: f"{name} {animal}", **options), name)
    expected = [(name, f"{name} owl") for name in ("first", "late", "early", "last")]
    assert list(found.call_each("zoo_sounds", animal="owl")) == expected
    assert list(found.call_each("zoo_home", animal="owl")) == expected


def test_a_plugin_that_fails_keeps_no_other_from_being_asked(caplog: pytest.LogCaptureFixture) -> None:
    found = loader()
    found.register(plugin(lambda animal: "early"), "good")
    found.register(plugin(fail), "bad")
    found.register(plugin(lambda animal: None), "silent")
    assert list(found.call_each("zoo_sounds", animal="owl")) == [("good", "early")]
    assert [record.getMessage() for record in caplog.records] == ["plugin 'bad': zoo_sounds failed"]


def test_whoever_takes_the_first_result_asks_no_more_plugins() -> None:
    asked: list[str] = []
    found = loader()
    for name in ("one", "two", "three"):
        found.register(plugin(lambda animal, name=name: asked.append(name) or (name if name == "two" else None)), name)
    assert next(found.call_each("zoo_home", animal="owl")) == ("two", "two")
    assert asked == ["three", "two"]


def test_calls_go_through_pluggy() -> None:
    found = loader()
    found.register(plugin(lambda animal: "hoo"), "good")
    called: list[str] = []
    found._manager.add_hookcall_monitoring(
        lambda name, implementations, arguments: called.append(f"{name} {len(implementations)} {arguments}"),
        lambda outcome, name, implementations, arguments: None,
    )
    found.register(plugin(lambda animal: "tu-whit"), "other")
    assert len(list(found.call_each("zoo_sounds", animal="owl"))) == 2
    assert called == ["zoo_sounds 1 {'animal': 'owl'}"] * 2


def test_a_project_may_call_functions_that_are_not_marked() -> None:
    bare = type("Bare", (), {"zoo_sounds": staticmethod(lambda animal: "hoo")})
    with pytest.raises(PluginError, match=r"zoo_sounds is not marked with @zoo\.hookimpl"):
        loader().register(bare, "bare")
    found = loader(calls_unmarked=True)
    found.register(bare, "bare")
    assert list(found.call_each("zoo_sounds", animal="owl")) == [("bare", "hoo")]
    assert found.infos[0].remarks == ("does not mark zoo_sounds with @zoo.hookimpl, as later versions will require",)


@pytest.mark.parametrize(
    ("hooks", "declared", "state"),
    [(1, None, "loaded"), (2, None, "failed"), (2, "v2", "loaded"), (1, "v2", "failed")],
)
def test_a_plugin_that_declares_no_version_is_for_the_first(hooks: int, declared: str | None, state: str) -> None:
    entries = [EntryPoint("empty", "json.decoder", "zoo")]
    if declared:
        entries.append(EntryPoint("empty", declared, "zoo.api"))
    found = loader(version=hooks)
    for candidate in find_candidates(project(hooks), entries=entries):
        found.load(candidate)
    (info,) = found.infos
    assert info.state == state
    if state == "failed":
        assert info.error == (
            f"asks for plugin API {declared or 'v1'}, this kaito-core has v{hooks}; install a version of it that fits"
        )
