"""`kaito status`: the text, and what the exit status says."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kaito_core.api.workspace.crd import workspace_crd
from kaito_core.cli.app import app
from kaito_core.cli.cluster.status import status_text
from kaito_testing.world.cluster import FakeCluster

NOW = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)


def condition(kind: str, status: str, reason: str, message: str = "", since: str = "2026-11-26T11:57:00Z") -> Any:
    written = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}
    return {**written, "observedGeneration": 2}


def workspace(*conditions: Any, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "w", "namespace": "team", "generation": 2},
        "status": {"conditions": list(conditions), **status},
    }


def test_a_ready_workspace_says_where_it_answers_and_with_what() -> None:
    adapters = [{"name": "pirate", "strength": 0.25, "state": "Ready", "message": ""}]
    made = workspace(
        condition("Ready", "True", "Served", since="2026-11-20T12:00:00Z"),
        endpoint="http://w.team.svc",
        workerNodes=["gpu-1"],
        adapters=adapters,
    )
    assert status_text(made, NOW).splitlines() == [
        "Workspace team/w: ready",
        "  answers at http://w.team.svc",
        "  on gpu-1",
        "  Ready   True   6d   Served",
        "  adapter pirate   at 0.25   Ready",
    ]


def test_one_that_waits_says_for_what() -> None:
    made = workspace(
        condition("ResourceReady", "False", "NoNodes", "no node has 2 GPUs"),
        condition("Ready", "False", "NoNodes", "no node has 2 GPUs: add one"),
    )
    assert status_text(made, NOW).splitlines() == [
        "Workspace team/w: not ready (NoNodes)",
        "  ResourceReady   False   3m   NoNodes",
        "  Ready           False   3m   NoNodes",
        "  no node has 2 GPUs: add one",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metadata": {"name": "w", "namespace": "team", "generation": 3}}, "changed, and not looked at since"),
        ({"status": {}}, "not seen by an operator yet; does one serve its namespace?"),
        (
            {"metadata": {"name": "w", "namespace": "team", "deletionTimestamp": "2026-11-26T11:57:00Z"}},
            "is being deleted",
        ),
    ],
)
def test_what_no_condition_says_is_said(changes: dict[str, Any], words: str) -> None:
    made = workspace(condition("Ready", "True", "Served")) | changes
    assert status_text(made, NOW).splitlines()[0] == f"Workspace team/w: {words}"


def test_the_exit_status_is_that_of_the_workspaces(kaito_cluster: FakeCluster, tmp_path: Path) -> None:
    kubeconfig = str(kaito_cluster.kubeconfig(tmp_path / "kubeconfig"))

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["status", "--kubeconfig", kubeconfig, *arguments])

    kaito_cluster.apply(workspace_crd())
    assert run().stdout == "no Workspace in namespace 'default'\n"
    kaito_cluster.apply(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "falcon"},
            "resource": {"labelSelector": {"matchLabels": {"a": "b"}}},
            "inference": {"preset": {"name": "falcon-7b"}},
        }
    )
    waiting = run("falcon")
    assert (waiting.exit_code, waiting.stdout.split(":")[0]) == (1, "Workspace default/falcon")
    unknown = run("falcn")
    assert "there is no Workspace 'falcn' in namespace 'default'; did you mean falcon" in str(unknown.exception)
