"""Providers that create nodes: our finalizer, the order of things, and deletion that always ends."""

from collections.abc import Sequence

from kaito_core.api import Cluster, GpuSku, NodeRequest, NodeState, ResourceType
from kaito_core.api.workspace.model import HOLDER_ANNOTATION
from kaito_core.controller.install.rbac import rules
from kaito_core.controller.work.finalizers import NODES_FINALIZER
from kaito_core.errors import CapacityError
from kaito_gpu_onprem.provider import OnPremProvider
from kaito_karpenter import NODECLAIMS
from kaito_testing.kube.server import routes
from kaito_testing.kube.server.fault_injection import RequestRecord
from kaito_testing.world.cluster import PodFailure
from kaito_testing.world.faulty_cluster import FaultyCluster
from scenarios.support.karpenter import RESOURCE, become_nodes, claims
from scenarios.support.pods import QUOTA
from scenarios.support.state import add_node, places
from scenarios.support.world import World, adapter, workspace


def _finalizers(world: World) -> list[str]:
    found: list[str] = world.existing("workspaces", "w")["metadata"].get("finalizers", [])
    return found


def test_nodes_are_made_and_given_back(azure: World, cluster: FaultyCluster) -> None:
    held = next(
        index
        for index, record in enumerate(cluster.writes(manager="kaito"))
        if NODES_FINALIZER in (record.body.get("metadata") or {}).get("finalizers", ())
    )
    made = [record.path for record in cluster.writes(manager="kaito")].index(
        f"/apis/karpenter.sh/v1/nodeclaims/{claims(cluster)[0]['metadata']['name']}"
    )
    assert held < made
    assert azure.wait_reason("w", "NodeClaimReady", "NodeClaimNotReady")["status"] == "Unknown"
    become_nodes(azure)
    document = azure.wait_state("w", "Ready")
    assert document["status"]["workerNodes"] == [f"node-{claims(cluster)[0]['metadata']['name']}"]
    name = claims(cluster)[0]["metadata"]["name"]
    busy = {"metadata": {"finalizers": ["karpenter.sh/termination"]}}
    cluster.patch("nodeclaims.karpenter.sh", name, busy, "")
    azure.delete("workspaces", "w")
    assert "gpu_azure" in azure.wait_reason("w", "WorkspaceSucceeded", "ReleasingNodes")["message"]
    assert _finalizers(azure) == [NODES_FINALIZER]
    cluster.patch("nodeclaims.karpenter.sh", name, {"metadata": {"finalizers": None}}, "")
    azure.wait("the Workspace is gone", lambda: azure.get("workspaces", "w") is None)
    assert claims(cluster) == []
    azure.wait("its children are gone", lambda: azure.get("deployments", "w") is None)


def test_pods_of_a_distributed_preset_that_are_refused(world: World) -> None:
    for name in ("gpu-1", "gpu-2"):
        add_node(world, name, gpus=1)
    quota = PodFailure("FailedCreate", {"kaito.sh/workspace": "w"}, message=f"exceeded quota: {QUOTA}, used: 0")
    world.fail_pods(quota)
    world.start()
    mine = {"kaito.sh/node-provider": "gpu_onprem"}
    world.apply(workspace("w", "on-many", resource={"count": 2}, annotations=mine))
    said = world.wait_reason("w", "InferenceReady", "QuotaExceeded")
    assert f"exceeded quota: {QUOTA}" in said["message"] and "kubectl describe quota" in said["message"]
    world.fail_pods(None)
    world.wait_state("w", "Ready")


def test_shared_nodes_stay_with_whom_they_are_after_a_restart(world: World) -> None:
    world.start()
    for name in ("gpu-1", "gpu-2"):
        add_node(world, name, gpus=1, labels={"pool": "shared"})
    pool = {"labelSelector": {"matchLabels": {"pool": "shared"}}}
    for name in ("v", "w"):
        world.apply(workspace(name, "on-gpu", resource=pool))
        world.wait_state(name, "Ready")
    assert sorted([*places(world, "v"), *places(world, "w")]) == ["gpu-1", "gpu-2"]
    objects = world.snapshot()
    world.stop()
    world.start()
    for name in ("v", "w"):
        world.wait(f"a pass for {name}", lambda name=name: world.passes.of(name))
    assert world.snapshot() == objects


def test_foreign_finalizers_are_left_alone(azure: World, cluster: FaultyCluster) -> None:
    patch = [{"op": "add", "path": "/metadata/finalizers/-", "value": "example.com/theirs"}]
    azure.patch("workspaces", "w", patch, content_type="application/json-patch+json")
    azure.delete("workspaces", "w")
    azure.wait("our finalizer is off", lambda: _finalizers(azure) == ["example.com/theirs"])
    assert claims(cluster) == []
    azure.patch("workspaces", "w", {"metadata": {"finalizers": None}})
    assert azure.get("workspaces", "w") is None


def test_deletion_ends_where_the_crd_is_gone(azure: World, cluster: FaultyCluster) -> None:
    cluster.delete("customresourcedefinitions", "nodeclaims.karpenter.sh", "")
    azure.delete("workspaces", "w")
    azure.wait("the Workspace is gone", lambda: azure.get("workspaces", "w") is None)


def test_deletion_ends_where_the_provider_is_gone(azure: World, cluster: FaultyCluster) -> None:
    azure.stop()
    azure.start(providers=(OnPremProvider(),))
    said = azure.wait_reason("w", "WorkspaceSucceeded", "NodeProviderFailed")
    assert "'gpu_azure'" in said["message"] and _finalizers(azure) == [NODES_FINALIZER]
    azure.delete("workspaces", "w")
    azure.wait("the Workspace is gone", lambda: azure.get("workspaces", "w") is None)
    (told,) = [event for event in azure.events("w") if event["reason"] == "NodesNotReleased"]
    assert "gpu_azure" in told["message"] and told["type"] == "Warning"
    assert len(claims(cluster)) == 1  # nobody is left who could


def test_without_karpenter_the_next_step_is_named(world: World) -> None:
    world.start()
    world.apply(workspace("w", "on-gpu", resource=RESOURCE))
    said = world.wait_reason("w", "WorkspaceSucceeded", "NodeProviderFailed")
    assert said["status"] == "Unknown" and "install Karpenter" in said["message"]
    world.delete("workspaces", "w")
    world.wait("the Workspace is gone", lambda: world.get("workspaces", "w") is None)


def test_a_workspace_moves_to_prepared_nodes(azure: World, cluster: FaultyCluster) -> None:
    add_node(azure, "gpu-1", gpus=1)
    mine = {"kaito.sh/node-provider": "gpu_onprem"}
    azure.apply(workspace("w", "on-gpu", resource={**RESOURCE, "preferredNodes": ["gpu-1"]}, annotations=mine))
    document = azure.wait_state("w", "Ready")
    assert document["status"]["workerNodes"] == ["gpu-1"]
    assert claims(cluster) == [] and _finalizers(azure) == []
    assert HOLDER_ANNOTATION not in document["metadata"]["annotations"]
    assert "NodeClaimReady" not in {item["type"] for item in document["status"]["conditions"]}


def test_the_rules_allow_what_is_called_and_no_more(azure: World, cluster: FaultyCluster) -> None:
    become_nodes(azure)
    azure.wait_state("w", "Ready")
    azure.apply(workspace("w", "on-gpu", resource=RESOURCE, adapters=[adapter("style")]))
    azure.wait("it joins the pod", lambda: azure.pods("w")[0]["spec"].get("ephemeralContainers"))
    azure.wait_state("w", "Ready")
    azure.delete("workspaces", "w")
    azure.wait("the Workspace is gone", lambda: azure.get("workspaces", "w") is None)
    allowed = {
        (rule.group, resource, verb)
        for rule in rules((NODECLAIMS,))
        for resource in rule.resources
        for verb in rule.verbs
    }
    used = {asked for record in cluster.requests() if (asked := _asked(record)) is not None}
    assert used <= allowed
    writes = {(resource, verb) for _, resource, verb in allowed if verb in ("create", "patch", "delete")}
    # Applying creates where nothing is; kinds of the same group share a rule.
    unused = writes - {(resource, verb) for _, resource, verb in used}
    assert {(resource, verb) for resource, verb in unused if verb != "create"} <= {
        *(("configmaps", "delete"), ("services", "delete"), ("deployments", "delete")),
        # Replicas and distributed presets need these; scenarios of nodes have both.
        *(("poddisruptionbudgets", "patch"), ("poddisruptionbudgets", "delete")),
        *(("statefulsets", "patch"), ("statefulsets", "delete"), ("pods", "delete")),
    }


def _asked(record: RequestRecord) -> tuple[str, str, str] | None:
    """Returns what a request has to be allowed: group, resource and verb; None for discovery."""
    route = routes.parse(record.path)
    if route is None:
        return None
    verbs = {"GET": "get" if route.name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
    verb = "watch" if record.query.get("watch") else verbs[record.method]
    return route.group, f"{route.plural}/{route.subresource}".rstrip("/"), verb


class _Moody:
    """A provider that raises the error that a test sets."""

    name = "moody"
    creates_nodes = True
    watches: Sequence[ResourceType] = (NODECLAIMS,)

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.released = False

    def skus(self) -> Sequence[GpuSku]:
        return (GpuSku("moody-1", 1, 80, "example"),)

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        if self.error is not None:
            raise self.error
        return NodeState(ready=("cpu-1",))

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        if self.error is not None:
            raise self.error
        self.released = True
        return True


def test_an_error_of_a_provider_is_reported_and_retried(world: World) -> None:
    moody = _Moody()
    moody.error = CapacityError("Code=QuotaExceeded: 0 of 24 cores are left in westeurope")
    world.start(providers=(moody,))
    world.apply(workspace("w", "on-gpu", resource={"instanceType": "moody-1"}))
    for condition in ("ResourceReady", "NodeClaimReady", "WorkspaceSucceeded"):  # as where Karpenter is refused
        said = world.wait_reason("w", condition, "InsufficientCapacity")
        assert said["status"] == "False" and "QuotaExceeded" in said["message"]
    moody.error = KeyError("a fault of the plugin")
    said = world.wait_reason("w", "WorkspaceSucceeded", "BackendError")
    assert "KeyError" in said["message"]
    world.apply(workspace("other"))
    world.wait_state("other", "Ready")  # the fault of one plugin stops nobody else
    moody.error = None
    world.wait_reason("w", "ResourceReady", "NodesReady")


def test_nothing_is_let_go_before_its_nodes_are(world: World) -> None:
    moody = _Moody()
    world.start(providers=(moody,))
    world.apply(workspace("w", "on-gpu", resource={"instanceType": "moody-1"}))
    world.wait("it is held", lambda: _finalizers(world) == [NODES_FINALIZER])
    moody.error = CapacityError("the cloud does not answer")
    world.delete("workspaces", "w")
    said = world.wait_reason("w", "WorkspaceSucceeded", "InsufficientCapacity")
    assert "the cloud does not answer" in said["message"]
    assert _finalizers(world) == [NODES_FINALIZER]
    moody.error = None
    world.wait("the Workspace is gone", lambda: world.get("workspaces", "w") is None)
    assert moody.released
