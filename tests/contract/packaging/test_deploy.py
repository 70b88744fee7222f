"""What `kaito install` prints. The images that it names are test_images.py's."""

import subprocess
import sys
import warnings
from typing import Any

import kubernetes_validate
import pytest
import yaml

from kaito_testing.world.cluster import FakeCluster


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, object]]:
    command = [
        sys.executable,
        "-m",
        "kaito_core.cli",
        "install",
        "--namespace",
        "serving",
        "--env",
        "KAITO_MAX_SURGE=1",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


def test_installation_is_valid_and_complete(manifests: list[dict[str, object]]) -> None:
    for manifest in manifests:
        if manifest["kind"] == "CustomResourceDefinition":
            continue  # its schema is recursive, which the validator does not follow; the API below reads it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kubernetes_validate.validate(manifest, "1.36", strict=True)
    assert [manifest["kind"] for manifest in manifests] == [
        "CustomResourceDefinition",
        "Namespace",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "PriorityClass",
        "Service",
        "PodDisruptionBudget",
        "Deployment",
    ]


def test_installation_applies_in_order_to_an_empty_cluster(manifests: list[dict[str, object]]) -> None:
    with FakeCluster() as cluster:
        for manifest in manifests:
            cluster.apply(manifest, manager="kubectl")
        pod = cluster.get("deployments", "kaito-operator", "serving")["spec"]["template"]["spec"]
        env = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
        assert env["KAITO_MAX_SURGE"] == "1"
        # Two replicas without an election would undo one another's work.
        assert (env["KAITO_LEADER_ELECTION"], env["KAITO_LEADER_ELECTION_NAMESPACE"]) == ("true", "serving")
        assert cluster.list("workspaces.kaito.sh") == []


def test_the_operator_may_manage_what_installed_providers_make(manifests: list[dict[str, object]]) -> None:
    (role,) = (manifest for manifest in manifests if manifest["kind"] == "ClusterRole")
    groups = {group for rule in role["rules"] for group in rule["apiGroups"]}  # type: ignore[attr-defined]
    assert "karpenter.sh" in groups
    assert all("*" not in (*rule["resources"], *rule["verbs"]) for rule in role["rules"])  # type: ignore[attr-defined]


def _installed(*arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "kaito_core.cli", "install", *arguments]
    return list(yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def test_an_operator_of_some_namespaces_has_rights_in_these_alone() -> None:
    manifests = _installed("--namespace", "team-a", "--env", "KAITO_NAMESPACES=team-a,team-b")
    (cluster_role,) = (item for item in manifests if item["kind"] == "ClusterRole")
    of_cluster = {resource for rule in cluster_role["rules"] for resource in rule["resources"]}
    assert {"nodeclaims", "nodes", "customresourcedefinitions", "namespaces"} <= of_cluster
    assert not {"workspaces", "deployments", "services", "configmaps", "pods"} & of_cluster
    assert {rule["verbs"][0] for rule in cluster_role["rules"] if "events" in rule["resources"]} == {"list"}
    roles = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item for item in manifests if item["kind"] == "Role"
    }
    assert set(roles) == {
        ("team-a", "kaito-operator"),
        ("team-a", "kaito-operator-team-a"),
        ("team-b", "kaito-operator-team-a"),
    }
    in_b = roles["team-b", "kaito-operator-team-a"]["rules"]
    assert {"workspaces", "deployments", "pods"} <= {resource for rule in in_b for resource in rule["resources"]}
    bindings = [item for item in manifests if item["kind"] == "RoleBinding"]
    assert {item["subjects"][0]["namespace"] for item in bindings} == {"team-a"}
    assert [(item["metadata"]["namespace"], item["roleRef"]["name"]) for item in bindings] == list(roles)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for manifest in manifests[1:]:
            kubernetes_validate.validate(manifest, "1.36", strict=True)


def test_the_deployed_operator_logs_json_and_is_probed() -> None:
    (deployment,) = (item for item in _installed() if item["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "KAITO_LOG_FORMAT", "value": "json"} in container["env"]
    assert {"name": "POD_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}} in container["env"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
