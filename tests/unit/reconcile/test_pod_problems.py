"""Why a pod is not ready, in the cluster's own words, and what the Workspace's status says about it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from kaito_core.reconcile.observed import Observed
from kaito_core.reconcile.pod_problems import is_stuck, pod_problem

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
    "refused by the kubelet": (
        {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no GPU is free"},
        "PodFailed",
        "pod 'p' was refused by its node: UnexpectedAdmissionError: no GPU is free",
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
    "an image without a shell": (
        containers({"name": "runtime", "state": {"terminated": ended(128, message='exec: "/bin/sh": no such file')}}),
        "ContainerCrashLoopBackOff",
        f'{C} fails: exec: "/bin/sh": no such file; the image must have /bin/sh and cp, as busybox has, '
        "and an adapter's its files in /data; see kubectl logs p -c runtime",
    ),
    "an image without a shell, as runc says it": (
        containers(waiting("RunContainerError", 'exec: "/bin/sh": stat /bin/sh: no such file or directory')),
        "ContainerStartError",
        f'{C}: exec: "/bin/sh": stat /bin/sh: no such file or directory; the image must have /bin/sh and cp, '
        "as busybox has, and an adapter's its files in /data",
    ),
    "a long log": (
        containers({"name": "runtime", "state": {"terminated": ended(1, message="line\n" * 500 + "the end")}}),
        "ContainerCrashLoopBackOff",
        f"{C} fails: ... {('line ' * 500 + 'the end')[-400:]}; see kubectl logs p -c runtime",
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
def test_the_status_gives_the_problem_of_a_pod(world: Callable[..., Any], what: str) -> None:
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
def test_the_status_says_what_is_awaited(world: Callable[..., Any], pods: list[Any], words: str) -> None:
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


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (waiting("CreateContainerConfigError", "couldn't find key HF_TOKEN in Secret models/hf"), "couldn't find key"),
        ({"name": "runtime", "state": {"terminated": ended(1, message="401 Unauthorized")}}, "401 Unauthorized"),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
def test_the_secret_that_a_step_reads_is_named(status: dict[str, Any], words: str, kind: str) -> None:
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "HF_TOKEN"}}}
    spec = {kind: [{"name": "runtime", "env": [{"name": "HOME", "value": "/tmp"}, token]}]}
    problem = pod_problem({"metadata": {"name": "p"}, "spec": spec, "status": containers(status)})
    assert problem is not None
    assert words in problem.message and "(its token is the key HF_TOKEN of Secret 'hf')" in problem.message


def warning(reason: str, message: str, uid: str, time: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"reason": reason, "message": message, "involvedObject": {"uid": uid}, "lastTimestamp": time}


STARTED = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("status", "seconds", "stuck"),
    [
        ({"phase": "Pending", "startTime": STARTED}, 60, True),
        ({"phase": "Pending", "startTime": STARTED, **containers(waiting("ContainerCreating"))}, 60, True),
        ({"phase": "Pending", "startTime": STARTED, **containers(waiting("ContainerCreating"))}, 9, False),
        ({"phase": "Pending", "startTime": STARTED, **containers(waiting("ErrImagePull"))}, 60, False),
        ({"phase": "Pending"}, 60, False),  # it has no node yet
        ({"phase": "Running", "startTime": STARTED}, 60, False),
        (
            {
                "phase": "Pending",
                "startTime": STARTED,
                "initContainerStatuses": [{"name": "weights", "state": {"running": {}}}],
                **containers(waiting("PodInitializing")),
            },
            60,
            False,
        ),
    ],
)
def test_a_kubelet_that_starts_no_container_is_noticed(status: dict[str, Any], seconds: int, stuck: bool) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {}, "status": status}
    assert is_stuck(pod, datetime.fromisoformat(STARTED) + timedelta(seconds=seconds)) is stuck


def test_problems_that_only_events_show(world: Callable[..., Any]) -> None:
    w = world()
    w.step()
    pod = {"metadata": {"name": "p", "uid": "u"}, "spec": {}, "status": {"phase": "Pending"}}
    w.pods = {"p": pod}
    observe = w.observed
    events = (
        warning("FailedMount", "no Secret", "u"),
        warning("FailedMount", "of another", "v"),
        warning("Odd", "x", "u"),
    )
    w.observed = lambda: Observed(observe().children, observe().pods, events=events)
    reason, words = "PodStartError", "0 of 1 pods serve requests; pod 'p' cannot start: FailedMount: no Secret"
    assert w.condition("InferenceReady") == ("False", reason, words)
    pod["status"] = {"phase": "Running", **containers(waiting("CrashLoopBackOff"))}
    assert w.condition("InferenceReady")[1] == "ContainerCrashLoopBackOff"  # the event is older


QUOTA = "exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, limited: 0"
FORBIDDEN = 'pods "demo-1-x" is forbidden: '
OF_A_STATEFUL_SET = 'create Pod demo-0 in StatefulSet demo failed error: pods "demo-0" is forbidden: '
ADVICE = "; raise the ResourceQuota of the namespace (kubectl describe quota), or free what it counts"


@pytest.mark.parametrize(
    ("words", "reason", "message"),
    [
        (FORBIDDEN + QUOTA, "QuotaExceeded", QUOTA + ADVICE),
        (
            FORBIDDEN + "violates PodSecurity",
            "FailedCreate",
            "the API server refuses the pods: violates PodSecurity",
        ),
        ("Pod is invalid: spec.x: no", "FailedCreate", "the API server refuses the pods: Pod is invalid: spec.x: no"),
    ],
)
def test_pods_that_cannot_be_created(world: Callable[..., Any], words: str, reason: str, message: str) -> None:
    w = world()
    w.step()
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
    w.child("Deployment")["status"] = {"conditions": [failure]}
    assert w.condition("InferenceReady") == ("False", reason, f"0 of 1 pods serve requests; {message}")
    failure["status"] = "False"
    assert w.condition("InferenceReady")[1] == "InferencePending"


def test_pods_that_a_stateful_set_cannot_create(world: Callable[..., Any]) -> None:
    w = world({"preset": {"name": "spread"}}, count=2)
    w.step()
    observe = w.observed
    workload = w.child("StatefulSet")["metadata"].setdefault("uid", "uid-of-w")
    events = (
        warning("FailedCreate", "older words", workload, "2026-01-01T00:00:00Z"),
        warning("FailedCreate", OF_A_STATEFUL_SET + QUOTA, workload, "2026-01-02T00:00:00Z"),
        warning("FailedCreate", "of another", "uid-of-another", "2026-01-03T00:00:00Z"),
    )
    w.observed = lambda: Observed(observe().children, observe().pods, events=events)
    assert w.condition("InferenceReady") == (
        "False",
        "QuotaExceeded",
        f"0 of 2 pods serve requests; {QUOTA + ADVICE}",
    )
    w.run_pods()
    w.child("StatefulSet")["status"]["readyReplicas"] = 0
    for pod in w.pods.values():
        pod["status"] = {"phase": "Pending"}
    assert w.condition("InferenceReady")[1] == "InferencePending"  # the event is older


def test_problems_of_living_pods_come_before_those_of_evicted_ones(world: Callable[..., Any]) -> None:
    w = world()
    w.step()
    evicted, _, _ = PROBLEMS["evicted"]
    pulling, _, _ = PROBLEMS["image"]
    w.pods = {
        "a": {"metadata": {"name": "a"}, "spec": {}, "status": evicted},
        "b": {"metadata": {"name": "b"}, "spec": {}, "status": {"phase": "Pending", **pulling}},
    }
    assert w.condition("InferenceReady")[1] == "ImagePullError"
    del w.pods["b"]
    assert w.condition("InferenceReady")[1] == "PodEvicted"


def test_ready_takes_the_workload_and_its_pods_to_agree(world: Callable[..., Any]) -> None:
    """Changes of the two arrive in any order, and adapters are reported by the pods that are known."""
    w = world(count=2)
    w.settle()
    unready = next(iter(w.pods.values()))
    unready["status"] = {"phase": "Pending"}
    assert w.condition("InferenceReady")[0] == "Unknown"
    unready["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    w.child("Deployment")["status"]["readyReplicas"] = 1
    assert w.condition("InferenceReady")[0] == "Unknown"
