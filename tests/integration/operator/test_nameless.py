"""The operator works under any uid: a container's mostly has no name, no home, and nothing that it may write."""

import signal
from pathlib import Path

import pytest

from helpers.nameless import nameless
from kaito_testing.world.cluster import FakeCluster
from scenarios.support.process import Process
from scenarios.support.world import World, workspace


@pytest.mark.slow  # a Python process starts
@pytest.mark.parametrize("home", [None, "/"], ids=["no-home", "root-home"])
def test_the_operator_works(home: str | None, world: World, kaito_cluster: FakeCluster, tmp_path: Path) -> None:
    with Process(kaito_cluster, tmp_path, nameless(home)) as process:
        world.apply(workspace("w", "no-such-preset"))
        world.wait("it works or fails", lambda: process.errors() or (world.get("workspaces", "w") or {}).get("status"))
        assert process.errors() == []
        world.wait_reason("w", "WorkspaceSucceeded", "UnknownPreset")
        process.send(signal.SIGTERM)
        assert process.wait() == 0
