"""An API that fails, watches that break, and documents that no CRD has checked."""

import copy
import threading
from typing import Any

import pytest
from operator_looks import end_state, settled
from operator_world import World, adapter, conditions, workspace

from kaito_core.api import KubeObject
from kaito_core.api.crd import workspace_crd
from kaito_core.errors import ClusterError
from kaito_core.settings import Settings
from kaito_core.testing.client import STRATEGIC
from kaito_core.testing.cluster import FakeCluster, PodFailure


def _story(world: World) -> dict[str, Any]:
    """A Workspace comes up, gets an adapter, and changes its strength."""
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    for strength in ("0.5", "0.75"):
        world.apply(workspace("w", adapters=[adapter("style", strength)]))
        world.wait_state("w", "Ready")
        settled(world, "w", {"style": (strength, "Ready")})
    return end_state(world)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/configmaps/"),
        ("PATCH", "/services/"),
        ("PATCH", "/deployments/"),
        ("PATCH", "/workspaces/w/status"),
        ("PATCH", "/pods/[^/]+$"),
        ("PATCH", "/ephemeralcontainers"),
        ("POST", "/events"),
        ("GET", "/deployments/w"),
    ],
)
def test_failing_requests_change_nothing_in_the_end(
    method: str, path: str, world: World, fake_cluster: FakeCluster
) -> None:
    world.start()
    undisturbed = _story(world)
    world.delete("workspaces", "w")
    world.wait("all is gone", lambda: not any(world.get(kind, "w") for kind in ("workspaces", "deployments")))
    for status in (409, 429, 500):
        fake_cluster.fail(method, path, status)
    assert _story(world) == undisturbed


def test_a_refusal_that_stays_is_said(world: World, fake_cluster: FakeCluster) -> None:
    fault = fake_cluster.fail("PATCH", "/deployments/", 403, times=1000, message="quota exceeded: pods")
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
    inference: KubeObject, field: str, bare_world: World, fake_cluster: FakeCluster
) -> None:
    fake_cluster.apply(_loose_crd())
    bare_world.start()
    bare_world.apply(workspace("w", inference=inference))
    failed = bare_world.wait_reason("w", "WorkspaceSucceeded", "InvalidWorkspace")
    assert failed["status"] == "False" and failed["message"].startswith(field)
    bare_world.wait("an event", lambda: bare_world.events("w"))
    fake_cluster.clear_log()
    fake_cluster.add_node("another", gpus=0)  # concerns every Workspace
    bare_world.apply(workspace("valid"))
    bare_world.wait("the valid one is served", lambda: bare_world.get("deployments", "valid"))
    assert not fake_cluster.writes(manager="kaito", path="/workspaces/w/")
    assert [event["reason"] for event in bare_world.events("w")] == ["InvalidWorkspace"]


def test_it_writes_nothing_twice(world: World, fake_cluster: FakeCluster) -> None:
    world.start()
    _story(world)
    world.apply(workspace("bad", "nobodys"))
    world.wait_state("bad", "Failed")
    for name in ("w", "bad"):
        world.cause_pass(name)
    fake_cluster.clear_log()
    for name in ("w", "bad"):
        world.cause_pass(name)
    fake_cluster.add_node("another", gpus=0)
    world.cause_pass("w")
    assert fake_cluster.writes(manager="kaito") == []
    world.stop()
    fake_cluster.clear_log()
    world.start()
    world.wait("it was looked at", lambda: world.passes.of("w"))
    world.cause_pass("w")
    assert [record for record in fake_cluster.writes() if record.manager != "test"] == []


def test_watches_that_break_lose_nothing(world: World, fake_cluster: FakeCluster) -> None:
    world.start()
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    fake_cluster.drop_watches()
    world.apply(workspace("w", resource={"count": 2}))
    world.wait("two replicas", lambda: world.existing("deployments", "w")["spec"]["replicas"] == 2)
    fake_cluster.expire_watches()
    world.apply(workspace("w", resource={"count": 3}))
    world.wait("three replicas", lambda: world.existing("deployments", "w")["spec"]["replicas"] == 3)


def test_what_is_deleted_while_watches_are_broken_is_noticed(world: World, fake_cluster: FakeCluster) -> None:
    world.start(settings=Settings(namespaces=("default",), health_port=0, resync_seconds=1))
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    blind = fake_cluster.fail("WATCH", "/services", 500, times=1000)
    fake_cluster.drop_watches()
    world.delete("services", "w")
    world.wait("the Service is back", lambda: world.get("services", "w"))
    blind.times = 0


def test_an_edit_that_only_the_answer_to_a_write_shows_is_noticed(bare_world: World, fake_cluster: FakeCluster) -> None:
    bare_world.start()
    bare_world.apply(workspace("w"))
    bare_world.wait_state("w", "Ready")
    blind = fake_cluster.fail("WATCH", "/workspaces", 500, times=1000)
    fake_cluster.drop_watches()
    bare_world.apply(workspace("w", resource={"count": 2}))
    fake_cluster.clear_log()
    lost = {"status": {"readyReplicas": 0}}  # the operator writes a status, and gets the edit in return
    fake_cluster.patch("deployments", "w", lost, content_type=STRATEGIC, subresource="status")
    # Not by the World, whose hands would cause the next event.
    fake_cluster.wait("replicas", lambda: (fake_cluster.get("deployments", "w") or {})["spec"]["replicas"] == 2)
    assert not fake_cluster.requests(method="GET", manager="kaito-operator", path="/workspaces$")
    blind.times = 0


@pytest.mark.slow  # kopf waits for its own tasks
def test_it_ends_rather_than_go_blind(world: World, fake_cluster: FakeCluster) -> None:
    status = {"kind": "Status", "code": 500, "message": "etcd is gone"}
    fake_cluster.mock["get /api/v1/nodes", {"watch": "true"}] << {"type": "ERROR", "object": status}
    with pytest.raises(ClusterError, match="etcd is gone"):
        world.start()  # ends before or after it was ready
        world.join()


def test_a_late_adapter_that_cannot_be_pulled_is_said_so(world: World, fake_cluster: FakeCluster) -> None:
    world.start()
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.runtimes.fetching.add("late")
    world.apply(workspace("w", adapters=[adapter("late")]))
    added = world.wait("the container", lambda: world.pods("w")[0]["spec"].get("ephemeralContainers"))[0]["name"]
    fake_cluster.run_workloads(PodFailure("ImagePullBackOff", container=added))
    failed = world.wait_reason("w", "WorkspaceSucceeded", "AdapterFailed")
    assert added in failed["message"] and "pull secret" in failed["message"]
    assert conditions(world.get("workspaces", "w"))["InferenceReady"]["status"] == "True"
    world.runtimes.fetching.clear()
    fake_cluster.run_workloads()
    world.wait_state("w", "Ready")


def test_it_waits_for_an_api_that_is_not_there_yet(world: World, fake_cluster: FakeCluster) -> None:
    fake_cluster.fail("GET", "/deployments$", 503, times=2)
    world.start()
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")


def test_conditions_of_others_are_kept(world: World, fake_cluster: FakeCluster) -> None:
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
    world.start()
    names = [f"w{index}" for index in range(25)]
    threads = [threading.Thread(target=world.apply, args=(workspace(name),)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in names:
        world.wait_state(name, "Ready")
