"""`kaito uninstall`: Workspaces first, then the operator; another operator and what it serves stay."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kaito_core.cli.app import app
from kaito_core.controller.install.manifests import installation
from kaito_testing.world.cluster import FakeCluster

RESOURCES = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "PriorityClass": "priorityclasses",
    "Service": "services",
    "Deployment": "deployments",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "ServiceAccount": "serviceaccounts",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
    "CustomResourceDefinition": "customresourcedefinitions",
}


def install(cluster: FakeCluster, namespace: str, **env: str) -> list[dict[str, Any]]:
    manifests = installation(namespace=namespace, watches=(), env=env, webhook=True)
    for manifest in manifests:
        cluster.apply(manifest, manager="kubectl")
    return manifests


def add_workspace(cluster: FakeCluster, name: str, namespace: str, *finalizers: str) -> None:
    cluster.apply(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": name, "namespace": namespace, "finalizers": list(finalizers)},
            "resource": {"instanceType": "Standard_NC24ads_A100_v4", "labelSelector": {"matchLabels": {"a": "b"}}},
            "inference": {"preset": {"name": "falcon-7b"}},
        }
    )


def left(cluster: FakeCluster, manifests: list[dict[str, Any]]) -> list[str]:
    """What is still there of an installation, its namespace excepted."""
    return [
        manifest["kind"]
        for manifest in manifests
        if manifest["kind"] in RESOURCES
        and cluster.get(
            RESOURCES[manifest["kind"]], manifest["metadata"]["name"], manifest["metadata"].get("namespace", "")
        )
    ]


@pytest.fixture
def uninstall(kaito_cluster: FakeCluster, tmp_path: Path) -> Any:
    kubeconfig = str(kaito_cluster.kubeconfig(tmp_path / "kubeconfig"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["uninstall", "--kubeconfig", kubeconfig, *arguments])

    return run


def test_everything_that_install_printed_goes_but_the_namespace(kaito_cluster: FakeCluster, uninstall: Any) -> None:
    manifests = install(kaito_cluster, "kaito-system")
    add_workspace(kaito_cluster, "falcon", "default")
    result = uninstall("--yes")
    assert result.exit_code == 0, result.output
    assert left(kaito_cluster, manifests) == []
    assert kaito_cluster.get("namespaces", "kaito-system", "")


def test_without_a_terminal_workspaces_are_deleted_only_with_yes(kaito_cluster: FakeCluster, uninstall: Any) -> None:
    manifests = install(kaito_cluster, "kaito-system")
    add_workspace(kaito_cluster, "falcon", "default")
    result = uninstall()
    assert result.exit_code != 0
    assert "default/falcon" in result.output
    assert "--yes" in str(result.exception)
    assert len(left(kaito_cluster, manifests)) == len([m for m in manifests if m["kind"] in RESOURCES])
    assert kaito_cluster.get("workspaces", "falcon")


def test_an_operator_stays_until_its_workspaces_are_gone(kaito_cluster: FakeCluster, uninstall: Any) -> None:
    manifests = install(kaito_cluster, "kaito-system")
    add_workspace(kaito_cluster, "falcon", "default", "kaito.sh/nodes")
    result = uninstall("--yes", "--timeout", "0")
    assert result.exit_code != 0
    words = str(result.exception)
    assert "Workspace default/falcon (finalizers: kaito.sh/nodes)" in words
    assert "no operator is ready in namespace 'kaito-system'" in words
    assert "Deployment" in left(kaito_cluster, manifests)
    kaito_cluster.patch("workspaces", "falcon", {"metadata": {"finalizers": None}})  # as an operator does
    again = uninstall("--yes")
    assert again.exit_code == 0, again.output
    assert left(kaito_cluster, manifests) == []


def test_another_operator_keeps_what_it_serves(kaito_cluster: FakeCluster, uninstall: Any) -> None:
    for name in ("team-a", "team-b"):
        kaito_cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    first = install(kaito_cluster, "kaito-a", KAITO_NAMESPACES="team-a")
    second = install(kaito_cluster, "kaito-b", KAITO_NAMESPACES="team-b")
    names = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in first + second]
    assert sorted(name for name in set(names) if names.count(name) > 1) == [
        ("CustomResourceDefinition", None, "workspaces.kaito.sh")
    ], "the second install overwrites nothing of the first"
    for namespace in ("team-a", "team-b"):
        add_workspace(kaito_cluster, "falcon", namespace)
    result = uninstall("--namespace", "kaito-a", "--yes")
    assert result.exit_code == 0, result.output
    assert "kept the CRD workspaces.kaito.sh: the operator in namespace 'kaito-b' needs it" in result.output
    assert left(kaito_cluster, first) == ["CustomResourceDefinition"]
    assert len(left(kaito_cluster, second)) == len([item for item in second if item["kind"] in RESOURCES])
    assert [kaito_cluster.get("workspaces", "falcon", name) is not None for name in ("team-a", "team-b")] == [
        False,
        True,
    ]


def test_a_namespace_without_an_operator_is_named(kaito_cluster: FakeCluster, uninstall: Any) -> None:
    install(kaito_cluster, "kaito-system")
    add_workspace(kaito_cluster, "falcon", "default")
    result = uninstall("--namespace", "kaito-sytem", "--yes")
    assert "'kaito-sytem', but into 'kaito-system'" in str(result.exception)
    assert kaito_cluster.get("workspaces", "falcon")
