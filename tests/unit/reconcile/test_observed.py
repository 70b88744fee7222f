"""Why a pod does not get ready, in the cluster's own words, and what the Workspace says about it."""

from collections.abc import Callable
from typing import Any

import pytest

from kaito_core.reconcile.observed import pod_problem

C = "container 'runtime' of pod 'p'"


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"name": "runtime", "state": {"waiting": {"reason": reason, "message": message}}, **more}


def ended(code: int, reason: str = "Error", message: str = "") -> dict[str, Any]:
    return {"exitCode": code, "reason": reason, "message": message}


def containers(*statuses: dict[str, Any]) -> dict[str, Any]:
    return {"containerStatuses": list(statuses)}


PROBLEMS: dict[str, tuple[dict[str, Any], str, str]] = {
    "evicted": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."},
        "PodEvicted",
        "pod 'p' was evicted: The node was low on resource: ephemeral-storage.",
    ),
    "unschedulable": (
        {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
                }
            ]
        },
        "Unschedulable",
        "pod 'p': 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    ),
    "image": (
        containers(waiting("ImagePullBackOff", "Back-off pulling image x")),
        "ImagePullError",
        f"{C}: Back-off pulling image x; check the image's name and its pull secret",
    ),
    "image of an adapter": (
        {"initContainerStatuses": [{"name": "adapter-style", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
        "ImagePullError",
        "container 'adapter-style' of pod 'p': ErrImagePull; check the image's name and its pull secret",
    ),
    "out of memory now": (
        containers({"name": "runtime", "state": {"terminated": ended(137, "OOMKilled")}}),
        "ContainerOOMKilled",
        f"{C} ran out of memory; use machines with more memory",
    ),
    "out of memory, waiting to start again": (
        containers(waiting("CrashLoopBackOff", lastState={"terminated": ended(137, "OOMKilled")})),
        "ContainerOOMKilled",
        f"{C} ran out of memory; use machines with more memory",
    ),
    "missing secret": (
        containers(waiting("CreateContainerConfigError", 'secret "hf-token" not found')),
        "ContainerStartError",
        f'{C}: secret "hf-token" not found',
    ),
    "crash loop": (
        containers(waiting("CrashLoopBackOff", "back-off 5m", lastState={"terminated": ended(2, message="no GPU\n")})),
        "ContainerCrashLoopBackOff",
        f"{C} fails: no GPU; see kubectl logs p -c runtime",
    ),
    "crashed just now": (
        containers({"name": "runtime", "state": {"terminated": ended(3)}}),
        "ContainerCrashLoopBackOff",
        f"{C} fails: exit status 3; see kubectl logs p -c runtime",
    ),
    "a crash that left nothing": (
        containers(waiting("CrashLoopBackOff")),
        "ContainerCrashLoopBackOff",
        f"{C} fails: exit status unknown; see kubectl logs p -c runtime",
    ),
}

FINE: dict[str, dict[str, Any]] = {
    "nothing is known": {},
    "creating": containers(waiting("ContainerCreating")),
    "running": containers({"name": "runtime", "state": {"running": {}}}),
    "a step that is done": {"initContainerStatuses": [{"name": "weights", "state": {"terminated": ended(0)}}]},
    "crashed before, runs now": containers(
        {"name": "runtime", "state": {"running": {}}, "lastState": {"terminated": ended(1)}}
    ),
}


@pytest.mark.parametrize("what", PROBLEMS)
def test_problem(what: str) -> None:
    status, reason, message = PROBLEMS[what]
    problem = pod_problem({"metadata": {"name": "p"}, "status": status})
    assert problem is not None
    assert (problem.reason, problem.message) == (reason, message)


@pytest.mark.parametrize("what", FINE)
def test_no_problem(what: str) -> None:
    assert pod_problem({"metadata": {"name": "p"}, "status": FINE[what]}) is None


@pytest.mark.parametrize("what", PROBLEMS)
def test_a_workspace_says_what_its_pods_suffer_from(world: Callable[..., Any], what: str) -> None:
    status, reason, message = PROBLEMS[what]
    w = world()
    w.settle()
    w.child("Deployment")["status"]["readyReplicas"] = 0
    (pod,) = w.pods.values()
    pod["metadata"]["name"] = "p"
    pod["status"] = status
    w.answering = False
    planned = w.step()
    assert w.condition("InferenceReady", planned) == ("False", reason, f"0 of 1 pods serve requests; {message}")
    assert w.condition("WorkspaceSucceeded", planned)[:2] == ("False", reason)
    assert planned.status["state"] == "NotReady"
    assert [(event.type, event.reason) for event in planned.events] == [("Warning", reason)]
    assert w.step().events == ()


@pytest.mark.parametrize(
    ("pods", "words"),
    [
        ([], "no pod exists yet"),
        ([{"phase": "Pending"}], "pod 'p' is pending"),
        (
            [{"phase": "Pending", "initContainerStatuses": [{"name": "weights", "state": {"running": {}}}]}],
            "pod 'p' runs its step 'weights'",
        ),
    ],
)
def test_a_workspace_says_what_it_waits_for(world: Callable[..., Any], pods: list[Any], words: str) -> None:
    w = world()
    w.step()
    w.pods = {str(i): {"metadata": {"name": "p"}, "spec": {}, "status": status} for i, status in enumerate(pods)}
    planned = w.plan()
    assert w.condition("InferenceReady", planned) == (
        "Unknown",
        "InferencePending",
        f"0 of 1 pods serve requests; {words}",
    )
    assert (planned.status["state"], planned.wake_after_seconds) == ("Pending", 30.0)
