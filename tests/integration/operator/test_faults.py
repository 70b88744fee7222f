"""An API that fails, watches that break, and documents that no CRD has checked."""

import copy
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kaito_core import hookimpl
from kaito_core.api import Cluster, GpuSku, KubeObject, NodeRequest, NodeState, ResourceType, Workspace
from kaito_core.api.workspace.crd import workspace_crd
from kaito_core.controller.resources import LEASE_NAME
from kaito_core.errors import ClusterError
from kaito_core.settings import Settings
from kaito_testing.world.client import STRATEGIC
from kaito_testing.world.cluster import FakeCluster, PodFailure
from kaito_testing.world.faulty_cluster import FaultyCluster
from scenarios.stories import LIVE_EDIT, live
from scenarios.support.state import add_node, settled
from scenarios.support.world import World, adapter, conditions, running, workspace

#: Every request that a pass makes.
_REQUESTS = (
    ("PATCH", "/configmaps/"),
    ("PATCH", "/services/"),
    ("PATCH", "/deployments/"),
    ("PATCH", "/workspaces/w/status"),
    ("PATCH", "/pods/[^/]+$"),
    ("PATCH", "/ephemeralcontainers"),
    ("POST", "/events"),
    ("GET", "/deployments/w"),
)


def _fail_every_request(cluster: FaultyCluster, **fault: Any) -> None:
    for method, path in _REQUESTS:
        cluster.fail(method, path, **fault)


#: What happens to the API or the watches, by name.
DISTURBANCES: dict[str, Callable[[FaultyCluster], object]] = {
    "409 Conflict": lambda cluster: _fail_every_request(cluster, status=409),
    "429": lambda cluster: _fail_every_request(cluster, status=429, retry_after_seconds=1),
    "500": lambda cluster: _fail_every_request(cluster, status=500),
    "no answer": lambda cluster: _fail_every_request(cluster, manner="hang"),
    "dead in mid-answer": lambda cluster: _fail_every_request(cluster, manner="cut"),
    "watches dropped": FaultyCluster.drop_watches,
    "watches 410 Gone": FaultyCluster.expire_watches,
}


@pytest.mark.slow
@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_disturbances_of_the_api_do_not_change_the_end_state(
    disturbance: str, undisturbed: str, world: World, cluster: FaultyCluster
) -> None:
    world.start(settings=Settings(namespaces=(world.namespace,), health_port=0, api_timeout_seconds=0.5))
    state = live(LIVE_EDIT, world, lambda: DISTURBANCES[disturbance](cluster))
    assert state == undisturbed


def test_a_lasting_refusal_is_reported(world: World, cluster: FaultyCluster) -> None:
    fault = cluster.fail("PATCH", "/deployments/", 403, times=1000, message="quota exceeded: pods")
    world.start()
    world.apply(workspace("w"))
    said = world.wait_reason("w", "WorkspaceSucceeded", "KubernetesApiFailed")
    assert said["status"] == "Unknown" and "quota exceeded: pods" in said["message"]
    fault.times = 0
    world.wait_state("w", "Ready")


def _loose_crd() -> KubeObject:
    """Returns the CRD as an older one may be: it lets everything through."""
    crd = copy.deepcopy(workspace_crd())
    for version in crd["spec"]["versions"]:
        version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return crd


@pytest.mark.parametrize(
    ("inference", "field"),
    [
        ({"preset": {"name": "on-cpu"}, "adapters": [adapter("style", "NaN")]}, "inference.adapters[0].strength"),
        ({"preset": {"name": "on-cpu"}, "adapters": [adapter("style", "11")]}, "inference.adapters[0].strength"),
        ({"preset": {"name": "on-cpu"}, "adapters": "no list"}, "inference.adapters"),
        ({"preset": {"name": "on-cpu"}, "unheard": 1}, "inference.unheard"),
        ({}, "inference"),
    ],
)
def test_documents_that_got_past_the_crd(
    inference: KubeObject, field: str, bare_world: World, kaito_cluster: FakeCluster
) -> None:
    kaito_cluster.apply(_loose_crd())
    bare_world.start()
    bare_world.apply(workspace("w", inference=inference))
    failed = bare_world.wait_reason("w", "WorkspaceSucceeded", "InvalidWorkspace")
    assert failed["status"] == "False" and failed["message"].startswith(field)
    bare_world.wait("an event", lambda: bare_world.events("w"))
    kaito_cluster.clear_log()
    kaito_cluster.add_node("another", gpus=0)  # concerns every Workspace
    bare_world.apply(workspace("valid"))
    bare_world.wait("the valid one is served", lambda: bare_world.get("deployments", "valid"))
    assert not kaito_cluster.writes(manager="kaito", path="/workspaces/w/")
    assert [event["reason"] for event in bare_world.events("w")] == ["InvalidWorkspace"]


def test_it_writes_nothing_twice(world: World, cluster: FaultyCluster) -> None:
    world.start()
    world.apply(workspace("w", adapters=[adapter("style", "0.5")]))
    world.wait_state("w", "Ready")
    settled(world, "w", {"style": ("0.5", "Ready")})
    world.apply(workspace("bad", "no-such-preset"))
    world.wait_state("bad", "Failed")
    for name in ("w", "bad"):
        world.cause_pass(name)
    cluster.clear_log()
    for name in ("w", "bad"):
        world.cause_pass(name)
    add_node(world, "another", gpus=0)
    world.cause_pass("w")
    assert cluster.writes(manager="kaito") == []
    world.stop()
    cluster.clear_log()
    world.start()
    world.wait("it was looked at", lambda: world.passes.of("w"))
    world.cause_pass("w")
    assert [record for record in cluster.writes() if record.manager != "test"] == []


def test_watches_that_break_lose_nothing(world: World, cluster: FaultyCluster) -> None:
    world.start()
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    cluster.drop_watches()
    world.apply(workspace("w", resource={"count": 2}))
    world.wait("two replicas", lambda: world.existing("deployments", "w")["spec"]["replicas"] == 2)
    cluster.expire_watches()
    world.apply(workspace("w", resource={"count": 3}))
    world.wait("three replicas", lambda: world.existing("deployments", "w")["spec"]["replicas"] == 3)


@pytest.mark.parametrize("status", [403, 404, 410, 500])
def test_watches_that_are_refused_are_opened_again(status: int, world: World, cluster: FaultyCluster) -> None:
    world.start()
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    refused = [cluster.fail("WATCH", f"/{kind}$", status) for kind in ("workspaces", "deployments")]
    cluster.drop_watches()
    world.wait("the refusals", lambda: not any(fault.times for fault in refused))
    world.apply(workspace("w", resource={"count": 2}))
    world.wait("two replicas", lambda: world.existing("deployments", "w")["spec"]["replicas"] == 2)
    world.wait_state("w", "Ready")
    world.stop()  # raises what had ended it


def test_what_is_deleted_while_watches_are_broken_is_noticed(world: World, cluster: FaultyCluster) -> None:
    world.start(settings=Settings(namespaces=(world.namespace,), health_port=0, resync_seconds=1))
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    blind = cluster.fail("WATCH", "/services", 500, times=1000)
    cluster.drop_watches()
    world.delete("services", "w")
    world.wait("the Service is back", lambda: world.get("services", "w"))
    blind.times = 0


def test_an_edit_that_only_the_answer_to_a_write_shows_is_noticed(
    bare_world: World, kaito_cluster: FakeCluster
) -> None:
    bare_world.start()
    bare_world.apply(workspace("w"))
    bare_world.wait_state("w", "Ready")
    blind = kaito_cluster.fail("WATCH", "/workspaces", 500, times=1000)
    kaito_cluster.drop_watches()
    bare_world.apply(workspace("w", resource={"count": 2}))
    kaito_cluster.clear_log()
    lost = {"status": {"readyReplicas": 0}}  # the operator writes a status, and gets the edit in return
    kaito_cluster.patch("deployments", "w", lost, content_type=STRATEGIC, subresource="status")
    # Not by the World, whose hands would cause the next event.
    kaito_cluster.wait("replicas", lambda: (kaito_cluster.get("deployments", "w") or {})["spec"]["replicas"] == 2)
    assert not kaito_cluster.requests(method="GET", manager="kaito-operator", path="/workspaces$")
    blind.times = 0


@pytest.mark.slow  # kopf waits for its own tasks
def test_it_ends_rather_than_go_blind(world: World, kaito_cluster: FakeCluster) -> None:
    status = {"kind": "Status", "code": 500, "message": "etcd is gone"}
    kaito_cluster.mock["get /api/v1/nodes", {"watch": "true"}] << {"type": "ERROR", "object": status}
    with pytest.raises(ClusterError, match="etcd is gone"):
        world.start()  # ends before or after it was ready
        world.join()


def test_a_late_adapter_that_cannot_be_pulled_is_reported(world: World, cluster: FaultyCluster) -> None:
    world.start()
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.runtimes.fetching.add("late")
    world.apply(workspace("w", adapters=[adapter("late")]))
    added = world.wait("the container", lambda: world.pods("w")[0]["spec"].get("ephemeralContainers"))[0]["name"]
    world.fail_pods(PodFailure("ImagePullBackOff", container=added))
    failed = world.wait_reason("w", "WorkspaceSucceeded", "AdapterFailed")
    assert added in failed["message"] and "pull secret" in failed["message"]
    assert conditions(world.get("workspaces", "w"))["InferenceReady"]["status"] == "True"
    world.runtimes.fetching.clear()
    world.fail_pods(None)
    world.wait_state("w", "Ready")


def test_it_waits_for_an_api_that_is_not_there_yet(world: World, cluster: FaultyCluster) -> None:
    cluster.fail("GET", "/deployments$", 503, times=2)
    world.start()
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")


def test_conditions_of_others_are_kept(world: World, cluster: FaultyCluster) -> None:
    world.start()
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    theirs = {
        "type": "Audited",
        "status": "True",
        "reason": "Seen",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    document = {"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "metadata": {"name": "w"}}
    world.apply({**document, "status": {"conditions": [theirs]}}, manager="auditor", subresource="status")
    world.apply(workspace("w", resource={"count": 2}))
    world.wait_state("w", "Ready")
    assert conditions(world.get("workspaces", "w"))["Audited"] == theirs


def test_many_at_once(world: World) -> None:
    for index in range(2, 6):
        add_node(world, f"cpu-{index}", gpus=0)  # a real scheduler counts the memory
    world.start()
    names = [f"w{index}" for index in range(25)]
    threads = [threading.Thread(target=world.apply, args=(workspace(name),)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        world.wait_state(name, "Ready")


@pytest.mark.parametrize("hours", [-1, 1])
def test_another_clock_than_the_servers_changes_nothing(hours: int, tmp_path: Path) -> None:
    with FakeCluster(lambda: datetime.now(UTC) + timedelta(hours=hours)) as cluster:
        cluster.apply(workspace_crd())
        cluster.add_node("cpu-1", gpus=0)
        cluster.run_workloads()
        settings = Settings(
            namespaces=("default",), health_port=0, leader_election=True, leader_election_namespace="default"
        )
        with running(World(cluster, tmp_path), settings=settings) as world:
            created = world.apply(workspace("w"))["metadata"]["creationTimestamp"]
            assert abs(datetime.fromisoformat(created) - datetime.now(UTC)) > timedelta(minutes=50)
            world.wait_state("w", "Ready")
            for strength in ("0.5", "0.25"):
                world.apply(workspace("w", adapters=[adapter("style", strength)]))
                settled(world, "w", {"style": (strength, "Ready")})
            world.wait_state("w", "Ready")
            world.cause_pass("w")
            cluster.clear_log()
            world.cause_pass("w")
            assert [record.path for record in cluster.writes(manager="kaito") if "/leases/" not in record.path] == []
            # What the operator says of time is its own.
            times = [item["lastTransitionTime"] for item in conditions(world.get("workspaces", "w")).values()]
            assert all(abs(datetime.fromisoformat(at) - datetime.now(UTC)) < timedelta(minutes=10) for at in times)


@pytest.mark.slow  # a Lease runs out
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_lease_is_judged_by_what_is_seen_of_it_not_by_its_date(
    hours: int, world: World, cluster: FaultyCluster
) -> None:
    dated = (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "somebody", "leaseDurationSeconds": 3, "renewTime": dated}
    metadata = {"name": LEASE_NAME, "namespace": world.namespace}
    cluster.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec})
    world.launch(
        settings=Settings(
            health_port=0, leader_election=True, leader_election_namespace=world.namespace, lease_seconds=3
        )
    )
    seen = world.wait("it looks", lambda: cluster.requests(method="GET", path="/leases/"))[0].at_seconds
    world.wait_ready()
    took = next(record for record in cluster.writes(path="/leases/") if record.status == 200)
    assert took.at_seconds - seen >= 3.0


class _Broken:
    """A provider that raises an error whatever it is asked."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    name = "broken"
    creates_nodes = True
    watches: Sequence[ResourceType] = ()

    def skus(self) -> Sequence[GpuSku]:
        return (GpuSku("broken-1", 1, 80, "example"),)

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        raise self.error

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        raise self.error


def test_a_fault_that_goes_on_is_logged_once_with_its_traceback(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.start(providers=(_Broken(KeyError("a bug of the plugin")),))
    world.apply(workspace("w", "on-gpu", resource={"instanceType": "broken-1"}))
    world.wait_reason("w", "WorkspaceSucceeded", "BackendError")
    for _ in range(2):
        world.cause_pass("w")
    said = [record for record in caplog.records if "the pass failed" in record.getMessage()]
    assert [record.levelname for record in said if record.levelno > logging.DEBUG] == ["ERROR"]
    assert said[0].exc_info is not None


def test_a_plugin_that_exits_ends_neither_the_operator_nor_other_workspaces(world: World) -> None:
    world.start(providers=(_Broken(SystemExit(3)),))
    world.apply(workspace("w", "on-gpu", resource={"instanceType": "broken-1"}))
    failed = world.wait_reason("w", "WorkspaceSucceeded", "BackendError")
    assert "plugin 'given': ensure of node provider 'broken' raised SystemExit: 3" in failed["message"]
    world.apply(workspace("other"))
    world.wait_state("other", "Ready")
    world.delete("workspaces", "w")
    world.wait("release fails", lambda: _said(world, "w", "release of node provider 'broken' raised"))
    world.stop()  # raises what had ended it


def _said(world: World, name: str, words: str) -> bool:
    return words in conditions(world.get("workspaces", name))["WorkspaceSucceeded"]["message"]


def test_an_observer_that_blocks_holds_up_nothing_else(world: World) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Exporter:
        @hookimpl
        def kaito_reconciled(self, workspace: Workspace, outcome: str) -> None:
            entered.set()
            leave.wait()

    try:
        world.start(plugins=(Exporter(),))
        for name in ("a", "b"):
            world.apply(workspace(name))
            world.wait_state(name, "Ready")
        assert entered.is_set()
        world.stop()
    finally:
        leave.set()
