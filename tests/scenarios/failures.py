"""Pods and providers fail, and recover."""

from collections.abc import Callable, Sequence

from kaito_core.api import Cluster, GpuSku, NodeRequest, NodeState, ResourceType
from kaito_core.errors import CapacityError
from kaito_testing.world.pods import PodFailure
from scenarios.support.state import end_state
from scenarios.support.world import World, workspace

__all__ = ["SCENARIOS"]

_WORDS = "0/1 nodes are available: 1 Insufficient memory."

#: What the kubelet or the scheduler says -> reason of InferenceReady, and what its message has to hold.
_FAILURES = (
    (PodFailure("ImagePullBackOff"), "ImagePullError", "pull secret"),
    (PodFailure("CrashLoopBackOff"), "ContainerCrashLoopBackOff", ""),
    (PodFailure("OOMKilled"), "ContainerOOMKilled", "more memory"),
    (PodFailure("Evicted", message="The node was low on resource: memory."), "PodEvicted", "low on resource: memory"),
    (PodFailure("Unschedulable", message=_WORDS), "Unschedulable", _WORDS),
)


def _failing(failure: PodFailure, reason: str, words: str) -> Callable[[World], None]:
    def scenario(world: World) -> None:
        world.fail_pods(failure)
        world.apply(workspace("w"))
        said = world.wait_reason("w", "InferenceReady", reason)
        assert said["status"] == "False" and words in said["message"]
        world.wait_reason("w", "WorkspaceSucceeded", reason)
        world.wait_state("w", "NotReady")
        told = world.wait("an event", lambda: [item for item in world.events("w") if item["reason"] == reason])
        assert {event["type"] for event in told} == {"Warning"}
        world.fail_pods(None)
        world.wait_state("w", "Ready")

    scenario.__name__ = f"a_failing_pod_is_reported_{reason}"
    return scenario


class _Cloud:
    """A provider to which any node is fine, and that fails as long as `error` is set."""

    name = "cloud"
    creates_nodes = True
    watches: Sequence[ResourceType] = ()

    def __init__(self) -> None:
        self.error: Exception | None = CapacityError("Code=QuotaExceeded: 0 of 24 cores are left")

    def skus(self) -> Sequence[GpuSku]:
        return (GpuSku("cloud-1", 1, 80, "example"),)

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        if self.error is not None:
            raise self.error
        return NodeState(ready=("cpu-1",))

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        return True


def a_failing_provider_is_reported_and_recovers(world: World) -> None:
    cloud = _Cloud()
    world.stop()
    world.start(providers=(cloud,))
    world.apply(workspace("w", "on-gpu", resource={"instanceType": "cloud-1"}))
    said = world.wait_reason("w", "WorkspaceSucceeded", "InsufficientCapacity")
    assert said["status"] == "False" and "QuotaExceeded" in said["message"]
    assert world.get("deployments", "w") is None
    cloud.error = None
    assert world.wait_reason("w", "ResourceReady", "NodesReady")["status"] == "True"
    world.existing("deployments", "w")
    before = end_state(world)["deployments/w"]
    cloud.error = CapacityError("Code=QuotaExceeded: taken back")
    world.cause_pass("w")
    world.wait_reason("w", "WorkspaceSucceeded", "InsufficientCapacity")
    assert end_state(world)["deployments/w"] == before  # what serves goes on serving
    cloud.error = None
    world.delete("workspaces", "w")
    world.wait("the Workspace is gone", lambda: world.get("workspaces", "w") is None)


SCENARIOS = (
    *(_failing(*failure) for failure in _FAILURES),
    a_failing_provider_is_reported_and_recovers,
)
