"""The operator is killed between any two writes, and started again: the end state is as without it."""

import signal
from pathlib import Path

import pytest

from scenarios.stories import STORIES, Story, live
from scenarios.support.crash import NEVER, MortalWorld
from scenarios.support.karpenter import claims
from scenarios.support.process import Process
from scenarios.support.state import belongings, left
from scenarios.support.world import World, workspace

#: A story takes some 30 writes; one that takes more than this does not end.
_MOST_WRITES = 100


@pytest.mark.slow  # an operator is started and killed for each write of the story
def test_an_operator_killed_between_any_two_writes_leaves_no_trace(story: Story, mortal: MortalWorld) -> None:
    mortal.live(NEVER)
    undisturbed = live(story, mortal)
    mortal.spare()
    mortal.stop()
    for writes in range(_MOST_WRITES):
        mortal.live(writes)
        try:
            assert live(story, mortal) == undisturbed, f"killed after {writes} writes"
        finally:
            mortal.spare()
            mortal.stop()
        if not mortal.died:
            assert writes >= 6  # as many deaths at least as any story has kinds of writes
            return
    pytest.fail(f"the story still takes more than {_MOST_WRITES} writes")


@pytest.mark.slow  # an operator is started and killed for each write until the Workspace is served
def test_deletion_at_every_stage_ends(mortal: MortalWorld) -> None:
    (document, *_) = STORIES[0].documents
    for writes in range(_MOST_WRITES):
        mortal.live(writes)
        try:
            mortal.apply(document)
            mortal.wait_unraised("the last write", lambda: _has_ended(mortal))
            served = not mortal.is_mute
            mortal.delete("workspaces", "w")
            mortal.wait("nothing is left", lambda: not left(mortal) and not claims(mortal.cluster))
        finally:
            mortal.spare()
            mortal.stop()
        if served:
            assert writes >= 6
            return
    pytest.fail(f"a Workspace takes more than {_MOST_WRITES} writes to be served")


def _has_ended(world: MortalWorld) -> bool:
    status = (world.get("workspaces", "w") or {}).get("status") or {}
    return world.is_mute or status.get("state") == "Ready"


@pytest.mark.slow  # Python processes start
def test_a_process_killed_in_the_middle_of_its_writes_is_succeeded(world: World, tmp_path: Path) -> None:
    world.apply(workspace("w", "smollm2-135m-instruct"))
    for path in ("/configmaps/w-serving$", "/services/w$", "/deployments/w$", "/workspaces/w/status$"):
        hang = world.cluster.fail("PATCH", path, manner="hang", times=NEVER)
        with Process(world.cluster, tmp_path, namespaces=world.namespace) as process:
            world.wait(f"it writes {path}", lambda hang=hang: hang.times < NEVER)
            process.send(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        hang.times = 0
    with Process(world.cluster, tmp_path, namespaces=world.namespace) as process:
        world.wait_state("w", "Ready")
        for kind in ("configmaps", "services", "deployments", "pods"):
            assert len(belongings(world, kind)) == 1, kind
        process.send(signal.SIGTERM)
        assert process.wait() == 0
    world.delete("workspaces", "w")
    world.wait("nothing is left", lambda: not left(world))
