"""The operator with the rights that `kaito install` gives its service account, and no others.

Not emulated: the emulated API lets everybody do everything.
"""

from pathlib import Path

import pytest

from kaito_core.controller.install.manifests import installation
from kaito_gpu_azure.provider import AzureProvider
from kaito_testing.kube.errors import ApiError
from kaito_testing.world.client import KubeClient
from scenarios.adapters import an_adapter_joins_running_pods, strengths_change_under_running_pods
from scenarios.catalog import Scenario
from scenarios.life import a_workspace_becomes_its_children, deletion_leaves_nothing
from scenarios.nodes import another_preset_leaves_nothing_of_the_first, replicas_have_a_disruption_budget
from scenarios.support.karpenter import RESOURCE, install_nodeclaims
from scenarios.support.world import World, running, workspace

pytestmark = [
    pytest.mark.parametrize("confined", [False, True], ids=["everywhere", "in one namespace"]),
    pytest.mark.usefixtures("controllers"),
]


def releases_what_it_made(world: World) -> None:
    world.apply(workspace("w", "on-gpu", resource=RESOURCE))
    world.wait("a claim", lambda: world.cluster.list("nodeclaims"))
    world.delete("workspaces", "w")
    world.wait("all is given back", lambda: not world.get("workspaces", "w") and not world.cluster.list("nodeclaims"))


def _may_list_workspaces(client: KubeClient, namespace: str) -> bool:
    try:
        return client.list("workspaces", namespace) is not None
    except ApiError as error:
        if error.code != 403:
            raise
        return False


@pytest.fixture
def installed(world: World, api_server: KubeClient, confined: bool, tmp_path: Path) -> World:
    """A World whose operator is its installation's service account."""
    install_nodeclaims(world.cluster)
    manifests = installation(
        namespace=world.namespace,
        image="registry.example/operator:1",
        watches=AzureProvider().watches,
        env={"KAITO_NAMESPACES": world.namespace} if confined else {},
    )
    account: dict[str, str] = {}
    for manifest in manifests:
        if manifest["kind"] not in ("Namespace", "Deployment"):  # the one is there, the other's pods need a kubelet
            world.cluster.apply(manifest)
        if manifest["kind"] == "ServiceAccount":
            account = manifest["metadata"]
    path = f"/api/v1/namespaces/{account['namespace']}/serviceaccounts/{account['name']}/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = api_server.request("POST", path, asked)["status"]["token"]
    operator = KubeClient(api_server.url, token=token)
    world.cluster.wait("the rights have got around", lambda: _may_list_workspaces(operator, world.namespace))
    made = World(world.cluster, tmp_path, world.namespace, operator=operator)
    made.added_nodes = world.added_nodes
    return made


@pytest.mark.parametrize(
    "scenario",
    [
        a_workspace_becomes_its_children,
        an_adapter_joins_running_pods,
        another_preset_leaves_nothing_of_the_first,
        deletion_leaves_nothing,
        releases_what_it_made,
        replicas_have_a_disruption_budget,
        strengths_change_under_running_pods,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_the_rights_suffice(scenario: Scenario, installed: World, caplog: pytest.LogCaptureFixture) -> None:
    with running(installed):
        scenario(installed)
    assert "forbidden" not in caplog.text.lower()
