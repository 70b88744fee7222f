import asyncio
import json
from pathlib import Path

import pytest
from adapter_world import World
from fakes import write_adapter

from kaito_runtime.adapters.cards import Choice
from kaito_runtime.adapters.catalog import AdapterState


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_strengths_and_blends_change_without_loading_anything(world: World) -> None:
    write_adapter(world.adapters / "a")
    world.configure(2, [{"name": "a", "strength": 0.5}])
    world.refresh()
    assert world.strengths() == {"a": 0.5}
    world.configure(3, [{"name": "a", "strength": "2"}], blends=[{"name": "low", "strengths": {"a": 0.1}}])
    world.refresh()
    assert world.strengths() == {"a": 2.0}
    assert world.strengths("low") == {"a": 0.1}
    assert world.manager.catalog.config.generation == 3
    assert len(world.engine.loaded) == 1


def test_adapters_come_and_go(world: World) -> None:
    for name in ("a", "b"):
        write_adapter(world.adapters / name)
    world.configure(2, [{"name": "a"}, {"name": "b"}])
    world.refresh()
    assert set(world.strengths()) == {"a", "b"}
    world.configure(3, [{"name": "b"}])
    world.refresh()
    assert set(world.strengths()) == {"b"}
    assert [version.name for version in world.engine.retired] == ["a"]
    assert [card.id for card in world.manager.catalog.servable()] == ["m", "base", "b"]


@pytest.mark.parametrize("change", ["digest", "content", "path"])
def test_replaced_adapter_is_a_new_version(world: World, change: str) -> None:
    write_adapter(world.adapters / "a")
    world.configure(2, [{"name": "a", "digest": "sha256:1"}])
    world.refresh()
    if change == "content":
        write_adapter(world.adapters / "a", "other")
    else:
        other = {"digest": "sha256:2"} if change == "digest" else {"digest": "sha256:1", "path": "c/2"}
        write_adapter(world.adapters / "c" / "2", "else")
        world.configure(3, [{"name": "a", **other}])
    world.refresh()
    assert world.engine.retired == [world.engine.loaded[0]]
    assert world.manager.catalog.status("a").version is world.engine.loaded[1]


def test_nothing_is_loaded_again_when_nothing_changed(world: World) -> None:
    write_adapter(world.adapters / "a")
    world.configure(2, [{"name": "a"}])
    for _ in range(3):
        world.refresh()
    assert len(world.engine.loaded) == 1


def test_failed_adapter_says_why_and_recovers_when_its_files_change(world: World) -> None:
    write_adapter(world.adapters / "a")
    world.engine.broken = {"a": "lora_A has the shape [4, 3]"}
    world.configure(2, [{"name": "a"}])
    world.refresh()
    assert world.states() == {"a": ("Failed", "lora_A has the shape [4, 3]")}
    world.engine.broken = {}
    write_adapter(world.adapters / "a", "repaired")
    world.refresh()
    assert world.states() == {"a": ("Ready", "")}


def test_replacement_that_fails_says_so_and_leaves_the_version_before_it(world: World) -> None:
    write_adapter(world.adapters / "a")
    world.configure(2, [{"name": "a"}])
    world.refresh()
    world.engine.broken = {"a": "bad"}
    write_adapter(world.adapters / "a", "other")
    world.refresh()
    assert world.manager.catalog.status("a").state is AdapterState.FAILED
    assert list(world.manager.catalog.choose("a", None).strengths) == world.engine.loaded
    assert world.engine.retired == []


def test_adapter_without_files_waits_for_them(world: World) -> None:
    world.configure(2, [{"name": "a"}])
    world.refresh()
    state, message = world.states()["a"]
    assert state == "Loading"
    assert message == f"waiting for the files in {world.adapters}/a"
    write_adapter(world.adapters / "a")
    world.refresh()
    assert world.states()["a"] == ("Ready", "")


def test_files_that_are_still_being_copied_are_not_read(world: World) -> None:
    world.refresh()
    world.configure(2, [{"name": "a"}])
    for size in range(3):
        write_adapter(world.adapters / "a", "x" * size)
        world.refresh(rounds=1)
        assert world.states()["a"][0] == "Loading"
        assert not world.engine.loaded
    world.refresh(rounds=1)
    assert world.states()["a"] == ("Ready", "")


def test_replaced_adapter_serves_its_old_version_until_the_new_one_is_there_and_says_so(world: World) -> None:
    write_adapter(world.adapters / "a" / "1")
    world.configure(2, [{"name": "a", "path": "a/1", "digest": "sha256:1"}])
    world.refresh()
    world.configure(3, [{"name": "a", "path": "a/2", "digest": "sha256:2"}])
    world.refresh(rounds=1)
    assert world.states()["a"][0] == "Loading"
    assert world.manager.catalog.config.generation == 3
    assert world.manager.catalog.choose("a", None) == Choice({world.engine.loaded[0]: 1.0}, 2)
    assert world.engine.retired == []
    write_adapter(world.adapters / "a" / "2")
    world.refresh()
    assert world.states()["a"] == ("Ready", "")
    assert world.manager.catalog.choose("a", None) == Choice({world.engine.loaded[1]: 1.0}, 3)
    assert world.engine.retired == [world.engine.loaded[0]]


def test_no_moment_shows_a_replaced_adapter_as_ready(world: World) -> None:
    write_adapter(world.adapters / "a")
    world.configure(2, [{"name": "a", "digest": "sha256:1"}])
    world.refresh()
    world.configure(3, [{"name": "a", "digest": "sha256:2"}])
    world.manager._read_config()
    assert world.manager.catalog.config.generation == 3
    assert world.states()["a"] == ("Loading", "is being replaced")


@pytest.mark.parametrize("content", ["", "{", '{"model": {"name": "m"}, "adapters": [{"name": "a", "strength": "x"}]}'])
def test_broken_file_leaves_what_was_applied_and_is_reported(world: World, content: str) -> None:
    write_adapter(world.adapters / "a")
    world.configure(2, [{"name": "a"}])
    world.refresh()
    world.file.write_text(content)
    world.refresh()
    assert world.strengths() == {"a": 1.0}
    assert "serving.json" in world.manager.config_error
    world.configure(4, [])
    world.refresh()
    assert (world.strengths(), world.manager.config_error) == ({}, "")


def test_missing_file_is_reported_until_it_is_back(world: World) -> None:
    world.refresh()
    content = world.file.read_text()
    world.file.unlink()
    world.refresh()
    assert "No such file" in world.manager.config_error
    world.file.write_text(content)
    world.refresh()
    assert world.manager.config_error == ""


def test_what_needs_a_new_pod_is_reported_and_not_applied(world: World) -> None:
    world.refresh()
    world.configure(2, model={"name": "m2", "dtype": "float16", "contextLength": 5})
    world.refresh()
    assert world.manager.config_error == (
        "model.dtype takes effect with a new pod; model.context_length takes effect with a new pod"
    )
    config = world.manager.catalog.config
    assert (config.model.name, config.model.dtype, config.generation) == ("m2", "auto", 2)


def test_kubernetes_swapping_links_is_seen(world: World, tmp_path: Path) -> None:
    """A mounted ConfigMap is a link to a link to a dated folder; an update replaces the middle one."""
    world.file.unlink()
    for name, generation in (("first", 5), ("second", 6)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "serving.json").write_text(json.dumps({"generation": generation, "model": {"name": "m"}}))
    (tmp_path / "..data").symlink_to("first")
    world.file.symlink_to("..data/serving.json")
    world.refresh()
    assert world.manager.catalog.config.generation == 5
    (tmp_path / "..new").symlink_to("second")
    (tmp_path / "..new").rename(tmp_path / "..data")
    world.refresh()
    assert world.manager.catalog.config.generation == 6


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "there is not enough memory: MemoryError"),
        (RuntimeError("CUDA out of memory."), "there is not enough memory: RuntimeError: CUDA out of memory."),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
    ],
)
def test_load_that_raises_anything_fails_its_adapter_alone(world: World, error: Exception, message: str) -> None:
    for name in ("a", "b"):
        write_adapter(world.adapters / name)
    world.engine.broken = {"a": error}
    world.configure(2, [{"name": "a"}, {"name": "b"}])
    world.refresh()
    assert world.states() == {"a": ("Failed", message), "b": ("Ready", "")}
    assert world.manager.settled


def tries(world: World, seconds: int) -> list[int]:
    """Returns after how many seconds the adapter was tried, by a watch that looks every five seconds."""
    start, found = world.seconds, []
    for passed in range(0, seconds, 5):
        world.seconds = start + passed
        before = len(world.engine.asked)
        world.refresh(rounds=1)
        found += [passed] * (len(world.engine.asked) - before)
    return found


def test_load_that_may_work_later_is_tried_again_with_growing_pauses_until_it_works(world: World) -> None:
    write_adapter(world.adapters / "a")
    world.engine.broken = {"a": MemoryError()}
    world.configure(2, [{"name": "a"}])
    assert tries(world, 1400) == [0, 10, 30, 70, 150, 310, 610, 910, 1210]
    world.engine.broken = {}
    assert len(tries(world, 300)) == 1
    assert world.states()["a"] == ("Ready", "")
    assert tries(world, 700) == []


def test_load_that_was_refused_is_not_tried_again_with_the_same_files(world: World) -> None:
    write_adapter(world.adapters / "a")
    world.engine.broken = {"a": "lora_A has the shape [4, 3]"}
    world.configure(2, [{"name": "a"}])
    assert len(tries(world, 700)) == 1


def test_new_files_are_tried_at_once_and_the_pauses_start_anew(world: World) -> None:
    write_adapter(world.adapters / "a")
    world.engine.broken = {"a": MemoryError()}
    world.configure(2, [{"name": "a"}])
    tries(world, 100)
    write_adapter(world.adapters / "a", "smaller")
    assert tries(world, 20) == [5, 15]  # the first look only sees that they may still be arriving


def test_adapter_that_is_gone_is_not_tried_again(world: World) -> None:
    write_adapter(world.adapters / "a")
    world.engine.broken = {"a": MemoryError()}
    world.configure(2, [{"name": "a"}])
    assert len(tries(world, 5)) == 1
    world.configure(3)
    assert tries(world, 700) == []


def test_rounds_that_fail_are_repeated_with_growing_pauses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    troubles = iter([OSError("no"), OSError("no"), None, OSError("no"), asyncio.CancelledError()])

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def refresh() -> None:
        if trouble := next(troubles):
            raise trouble

    monkeypatch.setattr(world.manager, "_pause", pause)
    monkeypatch.setattr(world.manager, "refresh", refresh)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(world.manager.watch())
    assert pauses == [1, 2, 4, 1, 2]


def test_an_edit_does_not_wait_for_the_next_look_at_the_folders(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.configure(2, [])
    world.refresh()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            world.configure(3, [])

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(world.manager._pause(1.0))
    assert len(slept) == 2
    world.refresh()
    asyncio.run(world.manager._pause(1.0))
    assert sum(slept[2:]) == pytest.approx(1.0)
