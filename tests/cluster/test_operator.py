"""The operator's scenarios on real API servers, where a World's hands do what controllers and kubelets do."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from operator_looks import add_node
from operator_scenarios import SCENARIOS, Scenario
from operator_world import World, running

from kaito_core.api.crd import workspace_crd
from kaito_core.testing.client import KubeClient
from kaito_core.testing.cluster import FakeCluster


def _is_established(cluster: KubeClient) -> bool:
    crd = cluster.get("customresourcedefinitions", "workspaces.kaito.sh", "") or {}
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any((item["type"], item["status"]) == ("Established", "True") for item in conditions)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_scenario(scenario: Scenario, cluster: KubeClient, namespace: str, tmp_path: Path) -> None:
    if cluster.has_workloads and not isinstance(cluster, FakeCluster):
        pytest.skip("the kubelets of this cluster would run what the scenarios only name")
    cluster.apply(workspace_crd())
    cluster.wait("the Workspace's type", lambda: _is_established(cluster))
    world = World(cluster, tmp_path, namespace)
    add_node(world, "cpu-1", gpus=0)
    try:
        with running(world):
            scenario(world)
    finally:
        world.clean()
