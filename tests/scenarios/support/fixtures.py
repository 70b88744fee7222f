"""Fixtures on top of a `world`, for each conftest that imports them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kaito_testing.world.faulty_cluster import FaultyCluster
from scenarios.stories import LIVE_EDIT, STORIES, Story, live
from scenarios.support.crash import MortalWorld
from scenarios.support.karpenter import RESOURCE, first_claim, install_nodeclaims
from scenarios.support.world import World, running, workspace

__all__ = ["azure", "mortal", "standby", "story", "undisturbed"]


@pytest.fixture
def azure(world: World, cluster: FaultyCluster) -> World:
    """A World with NodeClaims and a Workspace that asks for one."""
    install_nodeclaims(cluster)
    world.start()
    world.apply(workspace("w", "on-gpu", resource=RESOURCE))
    first_claim(world)
    return world


@pytest.fixture(params=STORIES, ids=lambda story: story.title)
def story(request: pytest.FixtureRequest) -> Story:
    """Each story in turn."""
    found: Story = request.param
    return found


@pytest.fixture
def mortal(world: World, cluster: FaultyCluster, tmp_path: Path) -> Iterator[MortalWorld]:
    """A World with Karpenter, whose operator is not started yet."""
    install_nodeclaims(cluster)
    made = MortalWorld(cluster, tmp_path, world.namespace)
    made.added_nodes = world.added_nodes
    yield made
    made.stop()


@pytest.fixture
def standby(world: World, cluster: FaultyCluster, tmp_path: Path) -> Iterator[World]:
    """A World with another operator, for the same cluster and runtimes."""
    made = World(cluster, tmp_path, world.namespace)
    made.runtimes = world.runtimes
    yield made
    made.stop()


_ENDS: dict[type[FaultyCluster], str] = {}


@pytest.fixture
def undisturbed(world: World, cluster: FaultyCluster) -> str:
    """The end state of `LIVE_EDIT` without disturbances; made once for each kind of cluster."""
    if type(cluster) not in _ENDS:
        with running(world):
            _ENDS[type(cluster)] = live(LIVE_EDIT, world)
    return _ENDS[type(cluster)]
