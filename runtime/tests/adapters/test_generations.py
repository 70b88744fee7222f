"""What each model id answers with while a configuration's adapters are fetched, loaded, or fail."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from adapter_world import World
from fakes import FakeEngine, FakeVersion, write_adapter
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters import manager
from kaito_runtime.adapters.cards import Kind, ModelCard
from kaito_runtime.errors import RequestError


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Serves adapter "a" at 0.5, "b" at 0.25 and the blend "mix" as generation 2."""
    world = World(tmp_path)
    for name in ("a", "b"):
        write_adapter(world.adapters / name)
    world.configure(2, [A, B], blends=[{"name": "mix", "strengths": {"a": 2}}])
    world.refresh()
    return world


A, B, NEW = {"name": "a", "strength": 0.5}, {"name": "b", "strength": 0.25}, {"name": "new", "strength": 4}


def served(world: World, model: str = "m", adapters: Any = None) -> tuple[int, dict[str, float]]:
    """Returns the generation and the strengths that a request gets."""
    choice = world.manager.catalog.choose(model, adapters)
    return choice.generation, {version.name: strength for version, strength in choice.strengths.items()}


def refusal(world: World, model: str) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        world.manager.catalog.choose(model, None)
    return caught.value.status, str(caught.value)


def test_added_adapter_takes_nothing_away_while_its_files_come_and_joins_the_mix_when_it_is_ready(world: World) -> None:
    world.configure(3, [A, B, NEW], blends=[{"name": "mix", "strengths": {"a": 2, "new": 1}}])
    world.refresh()
    assert world.states()["new"] == ("Loading", f"waiting for the files in {world.adapters}/new")
    assert served(world) == (2, {"a": 0.5, "b": 0.25})
    assert served(world, "mix") == (2, {"a": 2})
    assert served(world, "a") == (3, {"a": 0.5})
    assert refusal(world, "new")[0] == 503
    assert world.manager.catalog.serving_generation == 2
    write_adapter(world.adapters / "new")
    world.refresh()
    assert served(world) == (3, {"a": 0.5, "b": 0.25, "new": 4})
    assert served(world, "mix") == (3, {"a": 2, "new": 1})
    assert world.manager.catalog.serving_generation == 3


def test_added_adapter_that_fails_leaves_the_mix_and_joins_it_when_its_files_are_put_right(world: World) -> None:
    write_adapter(world.adapters / "new")
    world.engine.broken = {"new": "lora_A has the shape [4, 3]"}
    world.configure(3, [A, B, NEW])
    world.refresh()
    assert served(world) == (2, {"a": 0.5, "b": 0.25})
    assert refusal(world, "new") == (404, "adapter 'new' failed to load: lora_A has the shape [4, 3]")
    world.engine.broken = {}
    write_adapter(world.adapters / "new", "right")
    world.refresh()
    assert served(world) == (3, {"a": 0.5, "b": 0.25, "new": 4})


def test_edit_made_with_a_slow_addition_reaches_at_once_what_does_not_need_the_addition(world: World) -> None:
    world.configure(3, [A | {"strength": -1}, NEW], blends=[{"name": "mix", "strengths": {"a": 3}}])
    world.refresh()
    assert served(world, "a") == (3, {"a": -1})
    assert served(world, "mix") == (3, {"a": 3})
    assert refusal(world, "b")[0] == 404, "a removed adapter's name is gone at once"
    assert served(world) == (2, {"a": 0.5, "b": 0.25}), "a mix is of one generation as a whole"
    assert world.engine.retired == []
    write_adapter(world.adapters / "new")
    world.refresh()
    assert served(world) == (3, {"a": -1, "new": 4})
    assert [version.name for version in world.engine.retired] == ["b"]


def test_newer_configuration_supersedes_one_that_waits(world: World) -> None:
    world.configure(3, [A, B, NEW])
    world.refresh()
    write_adapter(world.adapters / "new")
    world.configure(4, [A | {"strength": 0.75}])
    world.refresh()
    assert served(world) == (4, {"a": 0.75})
    assert "new" not in world.engine.asked
    assert refusal(world, "new")[0] == 404


def test_replaced_version_is_kept_until_the_last_mix_with_it_has_switched(world: World) -> None:
    write_adapter(world.adapters / "a2")
    old, kept = world.engine.loaded
    world.configure(3, [A | {"path": "a2"}, B, NEW])
    world.refresh()
    assert world.states()["a"] == ("Ready", "")
    assert old in world.manager.catalog.choose("m", None).strengths
    assert old not in world.manager.catalog.choose("a", None).strengths
    assert world.engine.retired == []
    write_adapter(world.adapters / "new")
    world.refresh()
    assert world.engine.retired == [old]
    assert kept in world.manager.catalog.choose("m", None).strengths


def test_first_start_serves_what_does_not_need_a_failed_adapter_and_recovers(tmp_path: Path) -> None:
    world = World(tmp_path, A, NEW)
    write_adapter(world.adapters / "a")
    write_adapter(world.adapters / "new")
    world.engine.broken = {"new": "digest differs"}
    world.refresh()
    assert served(world, "base") == (1, {})
    assert served(world, "a") == (1, {"a": 0.5})
    assert refusal(world, "m") == (503, "adapter 'new' of model 'm' failed to load: digest differs")
    assert refusal(world, "new")[0] == 404
    assert world.manager.catalog.serving_generation is None
    world.engine.broken = {}
    write_adapter(world.adapters / "new", "right")
    world.refresh()
    assert served(world) == (1, {"a": 0.5, "new": 4})


def test_workspace_without_adapters_answers_as_the_base_until_its_first_adapter_is_ready(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.refresh()
    world.configure(2, [A])
    world.refresh()
    assert served(world) == (1, {})
    write_adapter(world.adapters / "a")
    world.refresh()
    assert served(world) == (2, {"a": 0.5})


def test_request_with_its_own_adapters_takes_each_as_its_name_stands(world: World) -> None:
    world.configure(3, [A | {"path": "missing", "strength": 1}, B | {"strength": 3}])
    world.refresh()
    assert served(world, "m", [("b", None)]) == (3, {"b": 3})
    assert served(world, "m", [("a", None), ("b", None)]) == (2, {"a": 0.5, "b": 3}), "the oldest is reported"
    assert served(world, "m", [("a", 8.0)]) == (2, {"a": 8})
    assert served(world, "m", []) == (3, {})


def test_renamed_default_answers_as_before_until_it_is_complete(world: World) -> None:
    world.configure(3, [A, B, NEW], model={"name": "m2"})
    world.refresh()
    assert served(world, "m2") == (2, {"a": 0.5, "b": 0.25})
    assert refusal(world, "m")[0] == 404


def test_name_that_comes_to_mean_something_else_does_not_answer_with_what_it_was(world: World) -> None:
    world.configure(3, [A, B, {"name": "mix"}])
    world.refresh()
    assert refusal(world, "mix")[0] == 503


def test_edit_that_is_taken_back_is_served_at_once_from_what_is_loaded(world: World) -> None:
    write_adapter(world.adapters / "a2")
    world.engine.broken = {"a": MemoryError(), "b": MemoryError()}  # no second copy fits
    world.configure(3, [A | {"path": "a2"}, NEW])
    world.refresh()
    assert world.states()["a"][0] == "Failed"
    world.configure(4, [A | {"strength": 3}, B])
    world.refresh(rounds=1)
    assert served(world) == (4, {"a": 3, "b": 0.25})
    assert world.engine.retired == []
    assert set(world.states().values()) == {("Ready", "")}
    world.engine.broken = {}
    write_adapter(world.adapters / "a", "changed since")
    world.refresh()
    assert world.engine.retired == world.engine.loaded[:1], "new files are still seen"


class SlowEngine(FakeEngine):
    """Loads only when `go` is set."""

    go: asyncio.Event
    loading: asyncio.Event

    async def load_adapter(self, name: str, path: Path, digest: str | None) -> FakeVersion:
        self.loading.set()
        await self.go.wait()
        return await super().load_adapter(name, path, digest)


@pytest.mark.parametrize("removed", [False, True])
def test_edit_made_while_an_adapter_is_read_does_not_wait_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    monkeypatch.setattr(manager, "_LOOK_SECONDS", 0.001)
    engine = world.manager._engine = SlowEngine()
    write_adapter(world.adapters / "new")
    world.configure(3, [A, B, NEW])
    world.refresh(rounds=1)
    left = [A | {"strength": 9}] if removed else [A | {"strength": 9}, NEW]

    async def edit_while_loading() -> None:
        engine.go, engine.loading = asyncio.Event(), asyncio.Event()
        refreshing = asyncio.create_task(world.manager.refresh())
        await engine.loading.wait()
        world.configure(4, left)
        while world.manager.catalog.config.generation != 4:  # noqa: ASYNC110 - the manager needs no event for it
            await asyncio.sleep(0)
        assert served(world, "a") == (4, {"a": 9})
        engine.go.set()
        await refreshing

    asyncio.run(asyncio.wait_for(edit_while_loading(), 60))
    assert served(world) == (4, {"a": 9} if removed else {"a": 9, "new": 4})
    unloaded = [version.name for version in engine.retired]
    assert unloaded == (["b", "new"] if removed else ["b"])


# Any sequence of edits, arrivals and failures, against the rules.

NAMES = ("a", "b", "c")
CONTENTS = ("1", "2")
STRENGTHS = st.sampled_from([-1.0, 0.0, 0.5, 2.0])


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Up to three adapters, each of one of two contents, and up to two blends of them."""
    adapters = [
        {"name": name, "strength": draw(STRENGTHS), "path": f"{name}/{content}", "digest": f"sha256:{name}{content}"}
        for name in draw(st.lists(st.sampled_from(NAMES), unique=True))
        for content in [draw(st.sampled_from(CONTENTS))]
    ]
    names = st.sampled_from([str(adapter["name"]) for adapter in adapters])
    strengths = st.dictionaries(names, STRENGTHS, max_size=2) if adapters else st.just({})
    blends = [
        {"name": blend, "strengths": draw(strengths)}
        for blend in draw(st.lists(st.sampled_from(["x", "y"]), unique=True))
    ]
    return {"adapters": adapters, "blends": blends}


EVENTS = st.one_of(
    st.tuples(st.sampled_from(["edit", "hasty edit"]), configurations()),
    st.tuples(st.just("arrive"), st.tuples(st.sampled_from(NAMES), st.sampled_from(CONTENTS))),
    st.tuples(st.sampled_from(["break", "mend"]), st.sampled_from(NAMES)),
    st.tuples(st.just("look"), st.none()),
)


class History:
    """The configurations so far, and what the rules say of the catalog."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.configs = {1: self.world.manager.catalog.config}
        self.cards: dict[tuple[Kind, str], ModelCard] = {}
        for name in NAMES:
            write_adapter(self.world.adapters / name / CONTENTS[0])

    def happen(self, what: str, detail: Any) -> None:
        match what:
            case "edit" | "hasty edit":
                generation = len(self.configs) + 1
                self.world.configure(generation, **detail)
                self.configs[generation] = ServingConfig.model_validate_json(self.world.file.read_bytes())
            case "arrive":
                write_adapter(self.world.adapters / "/".join(detail))
            case "break":
                self.world.engine.broken[detail] = MemoryError()
            case "mend":
                self.world.engine.broken.pop(detail, None)
        if what != "hasty edit":
            self.world.seconds += 300
            self.world.refresh(rounds=1)
            self.check()

    def check(self) -> None:
        catalog = self.world.manager.catalog
        declared = {(card.kind, card.id) for card in catalog.cards}
        cards = {(card.kind, card.id): card for card in catalog.servable()}
        assert self.cards.keys() & declared <= cards.keys(), "what could be served and is still declared is served"
        for key, card in cards.items():
            config = self.configs[card.generation]
            assert card.strengths == strengths_in(config, *key), "all strengths are of one generation"
            digests = {adapter.name: adapter.digest for adapter in config.adapters}
            choice = catalog.choose(card.id, None)
            found = {version.name: strength for version, strength in choice.strengths.items()}
            assert found == {name: strength for name, strength in card.strengths.items() if strength}
            assert all(version.digest == digests[version.name] for version in choice.strengths), "and all contents"
            assert key not in self.cards or card.generation >= self.cards[key].generation, "nothing goes back"
            if all(catalog.status(name).version is not None for name in strengths_in(catalog.config, *key)):
                assert card.generation == catalog.config.generation, "what is complete does not wait"
        engine = self.world.engine
        assert len(engine.retired) == len(set(engine.retired))
        ready = {status.version for status in catalog.statuses.values() if status.version is not None}
        used = {version for card in cards.values() for version in (card.versions or {}).values()}
        assert set(engine.loaded) - set(engine.retired) == ready | used, "what is served is loaded, nothing else"
        self.cards = cards


def strengths_in(config: ServingConfig, kind: Kind, name: str) -> dict[str, float]:
    mix = {adapter.name: adapter.strength for adapter in config.adapters}
    blends = {blend.name: blend.strengths for blend in config.blends}
    match kind:
        case Kind.DEFAULT:
            return mix
        case Kind.ADAPTER:
            return {name: mix[name]}
        case Kind.BLEND:
            return blends[name]
        case _:
            return {}


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_any_sequence_of_edits_arrivals_and_failures(events: list[tuple[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        for event in events:
            history.happen(*event)
        for name in NAMES:
            history.happen("mend", name)
            for content in CONTENTS:
                history.happen("arrive", (name, content))
        for _ in range(3):
            history.happen("look", None)
        newest = len(history.configs)
        cards = history.world.manager.catalog.cards
        assert all(card.versions is not None and card.generation == newest for card in cards), "all ends complete"
