"""The operator is killed between any two writes, and started anew: the world ends up as if it had not been."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from operator_karpenter import become_nodes, claims, nodeclaim_crd
from operator_looks import belongings, left
from operator_process import Process
from operator_stories import STORIES, Story, live
from operator_world import World, workspace

from kaito_core.api.crd import workspace_crd
from kaito_core.testing.cluster import FakeCluster
from kaito_core.testing.kube.faults import Fault

_NEVER = 10**9
#: A story takes some 30 writes; one that takes more than this does not end.
_MOST_WRITES = 100


class MortalWorld(World):
    """A World whose operator dies before a certain write, and is started anew."""

    def __init__(self, cluster: FakeCluster, folder: Path) -> None:
        super().__init__(cluster, folder)
        self._fake = cluster
        self._death: Fault | None = None

    def live(self, writes: int) -> None:
        """Starts an operator that writes this often, and then not once more."""
        self._death = self._fake.fail("WRITE", "", 500, times=_NEVER, after=writes)
        self.start()

    @property
    def died(self) -> bool:
        """Whether the operator got to its last write."""
        return self._death is None

    @property
    def is_mute(self) -> bool:
        """Whether the operator would have written once more, and could not."""
        return self.died or (self._death is not None and self._death.times < _NEVER)

    def wait(self, what: str, condition: Callable[[], Any]) -> Any:
        """Waits as a World does; meanwhile the operator may die and is succeeded, and Karpenter makes nodes."""

        def look() -> Any:
            if self._death is not None and self._death.times < _NEVER:
                self.stop()
                self._death.times, self._death = 0, None
                self.start()
            become_nodes(self._fake)
            return condition()

        return super().wait(what, look)

    def spare(self) -> None:
        """Lets the operator live on."""
        if self._death is not None:
            self._death.times = 0


@pytest.fixture
def mortal(fake_cluster: FakeCluster, tmp_path: Path) -> Iterator[MortalWorld]:
    """A World with Karpenter, whose operator is not started yet."""
    fake_cluster.apply(workspace_crd())
    fake_cluster.apply(nodeclaim_crd())
    fake_cluster.add_node("cpu-1", gpus=0)
    fake_cluster.run_workloads()
    made = MortalWorld(fake_cluster, tmp_path)
    yield made
    made.stop()


@pytest.mark.slow  # an operator lives and dies for each write of the story
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.title)
def test_an_operator_killed_between_any_two_writes_leaves_no_trace(
    story: Story, mortal: MortalWorld, fake_cluster: FakeCluster
) -> None:
    mortal.live(_NEVER)
    undisturbed = live(story, mortal, fake_cluster)
    mortal.spare()
    mortal.stop()
    for writes in range(_MOST_WRITES):
        mortal.live(writes)
        try:
            assert live(story, mortal, fake_cluster) == undisturbed, f"killed after {writes} writes"
        finally:
            mortal.spare()
            mortal.stop()
        if not mortal.died:
            assert writes >= 6  # as many deaths at least as any story has kinds of writes
            return
    pytest.fail(f"the story still takes more than {_MOST_WRITES} writes")


@pytest.mark.slow  # an operator lives and dies for each write until the Workspace is served
def test_deletion_at_every_stage_ends(mortal: MortalWorld, fake_cluster: FakeCluster) -> None:
    (document, *_) = STORIES[0].documents
    for writes in range(_MOST_WRITES):
        mortal.live(writes)
        try:
            mortal.apply(document)
            # Not as the World waits: it would raise the dead first.
            fake_cluster.wait("the last write", lambda: _make_nodes(fake_cluster) or _has_ended(mortal))
            served = not mortal.is_mute
            mortal.delete("workspaces", "w")
            mortal.wait("nothing is left", lambda: not left(mortal) and not claims(fake_cluster))
        finally:
            mortal.spare()
            mortal.stop()
        if served:
            assert writes >= 6
            return
    pytest.fail(f"a Workspace takes more than {_MOST_WRITES} writes to be served")


def _make_nodes(cluster: FakeCluster) -> bool:
    become_nodes(cluster)
    return False


def _has_ended(world: MortalWorld) -> bool:
    status = (world.get("workspaces", "w") or {}).get("status") or {}
    return world.is_mute or status.get("state") == "Ready"


@pytest.mark.slow  # Python processes start
def test_a_process_killed_in_the_middle_of_its_writes_is_succeeded(
    world: World, fake_cluster: FakeCluster, tmp_path: Path
) -> None:
    fake_cluster.apply(workspace("w", "smollm2-135m-instruct"))
    for path in ("/configmaps/w-serving$", "/services/w$", "/deployments/w$", "/workspaces/w/status$"):
        hang = fake_cluster.fail("PATCH", path, manner="hang", times=_NEVER)
        with Process(fake_cluster, tmp_path) as process:
            world.wait(f"it writes {path}", lambda hang=hang: hang.times < _NEVER)
            process.send(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        hang.times = 0
    with Process(fake_cluster, tmp_path) as process:
        world.wait_state("w", "Ready")
        for kind in ("configmaps", "services", "deployments", "pods"):
            assert len(belongings(world, kind)) == 1, kind
        process.send(signal.SIGTERM)
        assert process.wait() == 0
    fake_cluster.delete("workspaces", "w")
    world.wait("nothing is left", lambda: not left(world))
