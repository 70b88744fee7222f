"""Properties of plans in any world: the same each time, empty once done, and nothing deleted that is not ours."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.properties import property_test
from kaito_core.api import NodeState
from kaito_core.reconcile.actions import Delete
from kaito_core.reconcile.plan import Plan

Make = Callable[..., Any]
World = Any
Case = tuple[dict[str, Any], int, list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def empty(world: Make) -> World:
    """A world in which nothing has happened yet."""
    return world()


PRESETS = ("one-gpu", "cpu", "spread")
TEMPLATE = {"spec": {"containers": [{"name": "main", "image": "registry.example/llm:1"}]}}
SOURCES = st.sampled_from(
    [
        {"image": "registry.example/a:1"},
        {"image": "registry.example/a:2"},
        {"image": "registry.example/secret:1", "imagePullSecrets": ["pull"]},
        {"volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}},
        {"uri": "https://files.example/a/"},
    ]
)
ADAPTERS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.tuples(SOURCES, st.sampled_from([-10, -1, 0, 0.5, 1, 10])), max_size=2
).map(
    lambda chosen: [
        {"source": {"name": name, **source}, "strength": strength} for name, (source, strength) in chosen.items()
    ]
)
INFERENCE = st.one_of(
    st.just({"template": TEMPLATE}),
    st.builds(
        lambda preset, adapters: {"preset": {"name": preset}, "adapters": adapters}, st.sampled_from(PRESETS), ADAPTERS
    ),
)
COUNTS = st.integers(1, 2)
NODES = st.sampled_from(
    [
        NodeState(("node-a", "node-b", "node-c")),
        NodeState(("node-c", "node-b", "node-a")),
        NodeState(("node-a",), "NodesNotReady", "1 of 3 nodes are ready"),
        NodeState((), "NodesNotReady", "none"),
    ]
)
#: What happens between two plans: the user edits, the nodes change, a child is lost or spoilt, time passes.
TURNS = st.lists(
    st.one_of(
        st.tuples(st.just("edit"), INFERENCE, COUNTS),
        st.tuples(st.just("nodes"), NODES),
        st.tuples(st.just("lose"), st.integers(0, 9)),
        st.tuples(st.just("spoil"), st.integers(0, 9)),
        st.tuples(st.just("foreign"), st.integers(0, 9)),
        st.tuples(st.just("silent"), st.booleans()),
        st.tuples(st.just("pods")),
        st.tuples(st.just("step")),
    ),
    max_size=2,
)
CASES = st.tuples(INFERENCE, COUNTS, TURNS)
ALL_READY = NodeState(("node-a", "node-b", "node-c"))


def take_turn(world: World, turn: tuple[Any, ...]) -> None:
    """Lets one thing happen to a world."""
    what, *details = turn
    keys = sorted(world.children)
    if what == "edit":
        inference, count = details
        world.document["inference"] = copy.deepcopy(inference)
        world.document["resource"] = {"count": count}
        world.document["metadata"]["generation"] += 1
    elif what == "nodes":
        world.nodes = details[0]
    elif what == "silent":
        world.answering = details[0]
    elif what == "pods":
        world.run_pods()
    elif what == "step":
        world.step()
    elif what == "foreign":
        add_foreign(world, details[0])
    elif keys and what == "lose":
        del world.children[keys[details[0] % len(keys)]]
    elif keys and what == "spoil":
        child = world.children[keys[details[0] % len(keys)]]
        child["metadata"].setdefault("annotations", {})["kaito.sh/manifest-hash"] = "spoilt"


def add_foreign(world: World, number: int) -> None:
    """Adds an object of somebody else, under a name that kaito does not need and with labels that look like its own."""
    kind = ("ConfigMap", "Service", "Deployment", "StatefulSet")[number % 4]
    owners = [[], [{"kind": "Workspace", "name": "demo", "uid": "another-uid"}], [{"kind": "Job", "uid": "u"}]][
        number % 3
    ]
    name = f"foreign-{number}"
    labels = {"kaito.sh/workspace": "demo", "app.kubernetes.io/managed-by": "kaito"}
    metadata = {"name": name, "uid": name, "generation": 1, "labels": labels, "ownerReferences": owners}
    body = {"replicas": 0, "template": {"metadata": {"labels": {"x": "y"}}, "spec": {"containers": []}}}
    world.children[kind, name] = {"kind": kind, "metadata": metadata, "spec": body}


def deletions(planned: Plan) -> set[tuple[str, str]]:
    return {(action.kind, action.name) for action in planned.actions if isinstance(action, Delete)}


def is_ours(world: World, kind: str, name: str) -> bool:
    if kind == "Pod":
        return name in world.pods
    owners = world.children[kind, name]["metadata"].get("ownerReferences", [])
    return any(owner.get("uid") == "uid-demo" for owner in owners)


def fresh(world: World) -> World:
    """Returns an empty world with the plugins of another: finding them takes longer than to plan."""
    made = copy.copy(world)
    made.children, made.pods, made.document = {}, {}, copy.deepcopy(world.document)
    return made


def snapshot(world: World) -> str:
    return json.dumps([world.document, list(world.children.items()), world.pods])


def after(world: World, case: Case) -> World:
    """Returns a new world to which a case has happened."""
    inference, count, turns = case
    made = fresh(world)
    made.document["inference"], made.document["resource"] = copy.deepcopy(inference), {"count": count}
    for turn in (("step",), ("pods",), *turns):
        take_turn(made, turn)
    return made


@property_test(examples=100)
@given(case=CASES)
def test_a_plan_is_deterministic_and_deletes_only_what_is_ours(empty: World, case: Case) -> None:
    """A plan is the same each time, changes nothing by itself, and deletes only what is ours."""
    world = after(empty, case)
    before = snapshot(world)
    planned = world.plan()
    assert snapshot(world) == before
    assert world.plan() == planned
    assert all(is_ours(world, kind, name) for kind, name in deletions(planned))


@property_test(examples=100)
@given(case=CASES)
def test_the_plan_of_the_planned_world_is_empty(empty: World, case: Case) -> None:
    """Whatever has happened, the world settles; then nothing is left to do, and what is not ours is as it was."""
    world = after(empty, case)
    foreign = {key: child for key, child in world.children.items() if key[1].startswith("foreign-")}
    world.nodes, world.answering = ALL_READY, True
    world.settle()
    done = world.plan()
    assert (done.actions, done.events) == ((), ())
    assert done.status == world.document["status"]
    assert {key: child for key, child in world.children.items() if not is_ours(world, *key)} == foreign
