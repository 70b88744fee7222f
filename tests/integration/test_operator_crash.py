"""The operator is killed between any two writes, and started anew: the world ends up as if it had not been."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from operator_karpenter import become_nodes, claims, nodeclaim_crd
from operator_looks import end_state, settled
from operator_world import World, adapter, workspace

from kaito_core.api.crd import workspace_crd
from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.testing.cluster import FakeCluster
from kaito_core.testing.kube.faults import Fault

_THEIRS = "example.com/theirs"
_AUDITOR = "auditor"
_NEVER = 10**9
#: The story takes some 30 writes; one that takes more than this does not end.
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


def _document(strength: str, weights: str, *names: str) -> dict[str, Any]:
    return workspace(
        "w",
        "on-gpu",
        resource={"instanceType": "Standard_NC24ads_A100_v4"},
        adapters=[adapter(name, strength) for name in names],
        preset_options={"image": weights},
    )


def _mark(world: World, kind: str) -> None:
    """Leaves a label and, on the Workspace, a finalizer of somebody else's."""
    found = world.existing(kind, "w")
    metadata: dict[str, Any] = {"name": "w", "labels": {_THEIRS: "kept"}}
    if kind == "workspaces":
        metadata["finalizers"] = [_THEIRS]
    world.apply(
        {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": metadata},
        manager=_AUDITOR,
    )


def _story(world: World, cluster: FakeCluster) -> str:
    """A Workspace gets a machine, is served, edited live, rolled out anew and deleted; returns how it was served."""
    world.apply(_document("0.5", "registry.example/weights:1", "style"))
    _mark(world, "workspaces")
    world.wait_state("w", "Ready")
    _mark(world, "deployments")
    world.apply(_document("0.75", "registry.example/weights:1", "style", "late"))
    settled(world, "w", {"style": ("0.75", "Ready"), "late": ("0.75", "Ready")})
    (pod,) = world.pods("w")
    assert len(pod["spec"]["ephemeralContainers"]) == 1
    world.apply(_document("0.75", "registry.example/weights:2", "style", "late"))
    world.wait_state("w", "Ready")
    settled(world, "w", {"style": ("0.75", "Ready"), "late": ("0.75", "Ready")})
    (claim,) = claims(cluster)
    state = json.dumps(end_state(world), sort_keys=True).replace(claim["metadata"]["name"], "CLAIM")
    for kind, count in (("deployments", 1), ("services", 1), ("configmaps", 1), ("statefulsets", 0), ("pods", 1)):
        assert len([item for item in cluster.list(kind, "default") if _is_ours(item)]) == count, kind
    for kind in ("workspaces", "deployments"):
        assert world.existing(kind, "w")["metadata"]["labels"][_THEIRS] == "kept"
    world.delete("workspaces", "w")
    world.wait("our finalizer is off", lambda: world.existing("workspaces", "w")["metadata"]["finalizers"] == [_THEIRS])
    assert claims(cluster) == []
    cluster.patch("workspaces", "w", {"metadata": {"finalizers": None}})
    world.wait("nothing is left", lambda: not _left(world, cluster))
    return state


def _is_ours(item: dict[str, Any]) -> bool:
    return (item["metadata"].get("labels") or {}).get(WORKSPACE_LABEL) == "w"


def _left(world: World, cluster: FakeCluster) -> list[str]:
    """Returns what there still is of the Workspace, itself included."""
    kinds = ("deployments", "statefulsets", "services", "configmaps", "pods")
    left = [item["metadata"]["name"] for kind in kinds for item in cluster.list(kind, "default") if _is_ours(item)]
    return left + (["w"] if world.get("workspaces", "w") is not None else [])


@pytest.fixture
def mortal(fake_cluster: FakeCluster, tmp_path: Path) -> MortalWorld:
    """A World with Karpenter, whose operator is not started yet."""
    fake_cluster.apply(workspace_crd())
    fake_cluster.apply(nodeclaim_crd())
    fake_cluster.run_workloads()
    return MortalWorld(fake_cluster, tmp_path)


@pytest.mark.slow  # an operator lives and dies for each write of the story
def test_an_operator_killed_between_any_two_writes_leaves_no_trace(
    mortal: MortalWorld, fake_cluster: FakeCluster
) -> None:
    mortal.live(_NEVER)
    undisturbed = _story(mortal, fake_cluster)
    mortal.spare()
    mortal.stop()
    for writes in range(_MOST_WRITES):
        mortal.live(writes)
        try:
            assert _story(mortal, fake_cluster) == undisturbed, f"killed after {writes} writes"
        finally:
            mortal.spare()
            mortal.stop()
        if not mortal.died:
            assert writes > 10  # as many deaths at least as the story has kinds of writes
            return
    pytest.fail(f"the story still takes more than {_MOST_WRITES} writes")
