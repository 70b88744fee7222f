"""The suite for node providers: a sound provider passes every rule, and each rule finds the provider that breaks it."""

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from machines import MACHINES, MachineSuite, SoundProvider, suite_of
from rules import rules, verdict

from kaito_core.api import Cluster, GpuSku, KubeObject, NodeRequest, NodeState, ResourceType
from kaito_core.errors import ClusterError
from kaito_testing.conformance import NodeProviderConformance

SOUND = SoundProvider()
Machines = Sequence[KubeObject]
SERIAL = itertools.count()


def connects(self: Any) -> None:
    socket.create_connection(("192.0.2.1", 443), timeout=1)


async def keeps_quiet(self: Any, *arguments: Any) -> NodeState:
    return replace(await SOUND.state(*arguments), reason="", message="")


async def names_machines(self: Any, request: NodeRequest, machines: Machines, cluster: Cluster) -> NodeState:
    state = await SOUND.state(request, machines, cluster)
    return replace(state, ready=tuple(name.removeprefix("node-") for name in state.ready))


async def applies_always(self: Any, request: NodeRequest, cluster: Cluster) -> NodeState:
    for index in range(request.count):
        await SOUND.apply(cluster, SOUND.machine(SOUND.machine_name(request, index), request))
    return await SOUND.ensure(request, cluster)


async def makes_more_each_time(self: Any, request: NodeRequest, cluster: Cluster) -> NodeState:
    machines = await SOUND.machines(request, cluster)
    for _ in range(request.count - len(machines)):
        await SOUND.apply(cluster, SOUND.machine(f"m-{next(SERIAL)}", request))
    return await SOUND.state(request, await SOUND.machines(request, cluster), cluster)


async def waits(self: Any, request: NodeRequest, cluster: Cluster) -> NodeState:
    await asyncio.sleep(0.01)
    return await SOUND.ensure(request, cluster)


def forgetting_nothing() -> Any:
    seen: set[str] = set()

    async def state(self: Any, request: NodeRequest, machines: Machines, cluster: Cluster) -> NodeState:
        found = await SOUND.state(request, machines, cluster)
        seen.update(found.ready)
        return replace(found, ready=tuple(sorted(seen)))

    return state


async def sleeps(self: Any, request: NodeRequest, cluster: Cluster) -> Machines:
    time.sleep(0.02)  # noqa: ASYNC251
    return await SOUND.machines(request, cluster)


async def keeps_all(self: Any, request: NodeRequest, cluster: Cluster) -> NodeState:
    for index in range(request.count):
        name = SOUND.machine_name(request, index)
        if await cluster.get(MACHINES, name) is None:
            await SOUND.apply(cluster, SOUND.machine(name, request))
    return await SOUND.state(request, await SOUND.machines(request, cluster), cluster)


async def hides_refusals(self: Any, request: NodeRequest, machines: Machines, cluster: Cluster) -> NodeState:
    if any("refusal" in machine.get("status", {}) for machine in machines):
        return NodeState((), "Failed", "could not create the machine", failed=True)
    return await SOUND.state(request, machines, cluster)


async def applies_plainly(self: Any, cluster: Cluster, manifest: KubeObject) -> None:
    await cluster.apply(manifest)


async def all_machines(self: Any, request: NodeRequest, cluster: Cluster) -> Sequence[KubeObject]:
    return await cluster.list(MACHINES)


async def deletes_some(self: Any, request: NodeRequest, cluster: Cluster) -> bool:
    machines = await SOUND.machines(request, cluster)
    for machine in machines[:1]:
        await cluster.delete(MACHINES, machine["metadata"]["name"])
    return True


async def says_yes_too_early(self: Any, request: NodeRequest, cluster: Cluster) -> bool:
    await SOUND.release(request, cluster)
    return True


async def deletes_again(self: Any, request: NodeRequest, cluster: Cluster) -> bool:
    machines = await SOUND.machines(request, cluster)
    for machine in machines:
        await cluster.delete(MACHINES, machine["metadata"]["name"])
    return not machines


async def leaves_what_it_began(self: Any, request: NodeRequest, cluster: Cluster) -> bool:
    """Deletes only while nothing has been deleted: an interruption leaves the rest for ever."""
    machines = await SOUND.machines(request, cluster)
    if len(machines) == request.count:
        for machine in machines:
            await cluster.delete(MACHINES, machine["metadata"]["name"])
        return False
    return not machines


async def needs_machines(self: Any, request: NodeRequest, cluster: Cluster) -> bool:
    if await SOUND.release(request, cluster):
        try:
            await cluster.apply(SOUND.machine("probe", request))
        except ClusterError as error:
            raise RuntimeError("no Machines") from error
        await cluster.delete(MACHINES, "probe")
    return False


#: By rule: the members that break it, and a part of the verdict.
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "test_constructor_does_no_io": ({"__init__": connects}, "socket.getaddrinfo"),
    "test_registry_takes_it": ({"name": ""}, "whose name is a string"),
    "test_skus_are_a_table": (
        {"skus": lambda self: [GpuSku("gpu-1", 1, 24, ""), GpuSku("GPU-1", 1, 24, "")]},
        "duplicate gpu-1",
    ),
    "test_says_what_is_missing": ({"state": keeps_quiet}, "must be a CamelCase word"),
    "test_nodes_get_ready": ({"state": names_machines}, "ready must hold names of nodes"),
    "test_repetition_changes_nothing": ({"ensure": applies_always}, "it writes though nothing has changed"),
    "test_interrupted_creation_ends_the_same": ({"ensure": makes_more_each_time}, "after an interruption"),
    "test_does_not_wait": ({"ensure": waits}, "waits for 0.01 s"),
    "test_lost_node_is_replaced": ({"state": forgetting_nothing()}, "which is gone"),
    "test_fewer_nodes_give_the_others_back": ({"ensure": keeps_all}, "one node is asked for"),
    "test_refusal_is_passed_on": ({"state": hides_refusals}, "words are not passed on: 'could not create"),
    "test_absent_types_are_explained": ({"apply": applies_plainly}, "the server has no resource type"),
    "test_objects_name_their_workspace": ({"watches": ()}, "watches lacks Machine"),
    "test_our_labels_are_not_overwritten": (
        {"labels": lambda self, request: {**SOUND.labels(request), **request.match_labels}},
        "a selector overwrites kaito.sh/workspace",
    ),
    "test_names_are_valid_and_apart": (
        {"machine_name": lambda self, request, index: f"{request.workspace[:40]}-{index}"},
        "two Workspaces would share objects",
    ),
    "test_foreign_objects_are_left_alone": ({"machines": all_machines}, "objects of others were changed or deleted"),
    "test_release_leaves_nothing": (
        {"release": deletes_some},
        "nothing is left, but there is Machine",
    ),
    "test_release_waits_for_what_is_still_there": ({"release": deletes_again}, "is deleted again"),
    "test_interrupted_release_ends_the_same": ({"release": leaves_what_it_began}, "release is not True after"),
    "test_absent_types_count_as_gone": ({"release": needs_machines}, "could never be deleted"),
}


def test_every_rule_has_a_provider_that_breaks_it() -> None:
    assert set(BROKEN) == rules(NodeProviderConformance)


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_a_sound_provider_passes(rule: str) -> None:
    assert verdict(MachineSuite, rule) == ""


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_a_broken_provider_is_found(rule: str) -> None:
    broken, words = BROKEN[rule]
    try:
        found = verdict(suite_of(**broken), rule)
    except ClusterError as error:  # pytest reports an unexpected exception as a failure too
        found = str(error)
    assert words in found


@pytest.mark.parametrize(
    ("rule", "broken", "words"),
    [
        ("test_does_not_wait", {"machines": sleeps}, "waits for 0.02 s"),
        ("test_constructor_does_no_io", {"__init__": lambda self: open("/etc/hostname").close()}, "/etc/hostname"),
        ("test_release_waits_for_what_is_still_there", {"release": says_yes_too_early}, "says True while objects"),
        (
            "test_names_are_valid_and_apart",
            {"machine_name": lambda self, r, i: f"M_{r.namespace}.{i}"},
            "must be a DNS label",
        ),
        ("test_objects_name_their_workspace", {"labels": lambda self, request: {}}, "lacks the labels"),
        ("test_registry_takes_it", {"watches": ("machines",)}, "watches must be ResourceTypes"),
        ("test_skus_are_a_table", {"skus": lambda self: [GpuSku("gpu", 0, 24, "")]}, "gpu must have a name, GPUs"),
    ],
)
def test_other_ways_to_break_a_rule(rule: str, broken: dict[str, Any], words: str) -> None:
    assert words in verdict(suite_of(**broken), rule)


def test_an_error_that_is_swallowed_is_found_all_the_same() -> None:
    def hides(self: Any) -> None:
        with contextlib.suppress(AssertionError):
            connects(self)

    assert "socket.getaddrinfo" in verdict(suite_of(__init__=hides), "test_constructor_does_no_io")


def test_a_crash_on_a_failed_write_is_found() -> None:
    async def crashes(self: Any, cluster: Cluster, manifest: KubeObject) -> None:
        try:
            await cluster.apply(manifest)
        except ClusterError as error:
            raise KeyError("machine") from error

    found = verdict(suite_of(apply=crashes), "test_interrupted_creation_ends_the_same")
    assert "must end in a BackendError, got KeyError" in found


def test_a_provider_without_machines_of_its_own_skips_what_is_for_others() -> None:
    finder = suite_of(creates_nodes=False)
    assert verdict(finder, "test_refusal_is_passed_on") == "skipped"
    assert verdict(finder, "test_absent_types_count_as_gone") == ""


def test_watches_may_be_empty_where_nothing_is_made() -> None:
    nothing: Sequence[ResourceType] = ()
    assert verdict(suite_of(creates_nodes=False, watches=nothing), "test_objects_name_their_workspace") == "skipped"
