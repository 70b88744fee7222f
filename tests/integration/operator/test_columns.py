"""What `kubectl get workspaces` prints: the columns of the CRD, in the tables of the API and as kubectl shows them."""

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from kaito_testing.world.cluster import FakeCluster
from scenarios.support.state import add_node
from scenarios.support.world import World, workspace

#: Upstream's columns in upstream's order, with State before Age; JobStarted belongs to tuning, which we do not do.
COLUMNS = ["Name", "Instance", "ResourceReady", "InferenceReady", "WorkspaceSucceeded", "State", "Age"]
WIDE = [*COLUMNS, "Preset", "Nodes"]


@pytest.fixture
def shown(world: World) -> World:
    """A World with a Workspace that is served, and one that is wrong."""
    world.start()
    add_node(world, "gpu-1", gpus=1)
    world.apply(workspace("good", "on-gpu", resource={"preferredNodes": ["gpu-1"]}))
    world.apply(workspace("wrong", "no-such-preset", resource={"instanceType": "Standard_NC24ads_A100_v4"}))
    world.wait_state("good", "Ready")
    world.wait_state("wrong", "Failed")
    return world


def _table(cluster: FakeCluster) -> tuple[list[tuple[str, int]], dict[str, list[object]]]:
    """Returns the columns with their priorities, and the rows by name."""
    url = f"{cluster.url}/apis/kaito.sh/v1beta1/namespaces/default/workspaces"
    request = urllib.request.Request(url, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        table = json.load(answer)
    columns = [(column["name"], column["priority"]) for column in table["columnDefinitions"]]
    return columns, {row["cells"][0]: row["cells"] for row in table["rows"]}


def test_the_tables_columns_are_upstreams_with_state_and_age(shown: World, kaito_cluster: FakeCluster) -> None:
    columns, rows = _table(kaito_cluster)
    assert [name for name, priority in columns if priority == 0] == COLUMNS
    assert [name for name, _ in columns] == WIDE
    good, wrong = (dict(zip(WIDE, rows[name], strict=True)) for name in ("good", "wrong"))
    assert str(good.pop("Age")).endswith("s") and str(wrong.pop("Age")).endswith("s")
    assert good == {
        "Name": "good",
        "Instance": good["Instance"],
        "ResourceReady": "True",
        "InferenceReady": "True",
        "WorkspaceSucceeded": "True",
        "State": "Ready",
        "Preset": "on-gpu",
        "Nodes": '["gpu-1"]',
    }
    assert wrong["Instance"] == "Standard_NC24ads_A100_v4" and wrong["Preset"] == "no-such-preset"
    assert (wrong["WorkspaceSucceeded"], wrong["State"]) == ("False", "Failed")


@pytest.mark.parametrize(("wide", "columns"), [(False, COLUMNS), (True, WIDE)])
def test_kubectl_prints_them(
    wide: bool, columns: list[str], shown: World, kaito_cluster: FakeCluster, tmp_path: Path
) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    kubeconfig, cache = kaito_cluster.kubeconfig(tmp_path / "kubeconfig"), tmp_path / "cache"
    command = [kubectl, "--kubeconfig", str(kubeconfig), "--cache-dir", str(cache), "get", "workspaces"]
    text = subprocess.run(
        [*command, *(["-o", "wide"] if wide else [])], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    head, *lines = text.splitlines()
    assert head.split() == [column.upper() for column in columns]
    good = next(line for line in lines if line.startswith("good ")).split()
    assert good[-1 if not wide else -3].endswith("s")
    assert {"True", "Ready"} <= set(good) and len(lines) == 2
    if wide:
        assert good[-2:] == ["on-gpu", '["gpu-1"]']
