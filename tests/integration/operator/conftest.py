"""A World on the emulated API: the fixtures that tests/cluster has for a real one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kaito_core.api.workspace.crd import workspace_crd
from kaito_testing.world.cluster import FakeCluster
from kaito_testing.world.faulty_cluster import FaultyCluster
from scenarios.support.fixtures import azure, mortal, standby, story, undisturbed  # noqa: F401
from scenarios.support.world import World


@pytest.fixture
def cluster(kaito_cluster: FakeCluster) -> FaultyCluster:
    """The cluster of tests that run on a real API server too, see tests/cluster."""
    return kaito_cluster


@pytest.fixture
def world(bare_world: World, kaito_cluster: FakeCluster) -> World:
    """A World on the emulated API, with simulated workloads; its operator is not started yet."""
    kaito_cluster.add_node("cpu-1", gpus=0)
    kaito_cluster.run_workloads()
    return bare_world


@pytest.fixture
def bare_world(kaito_cluster: FakeCluster, tmp_path: Path) -> Iterator[World]:
    """A World on the emulated API without controllers: what they do is done by hand while the World waits."""
    kaito_cluster.apply(workspace_crd())
    made = World(kaito_cluster, tmp_path)
    yield made
    made.stop()
