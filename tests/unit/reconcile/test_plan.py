"""Scenarios of plans: a world, a change, and what is done about it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito_core.api import NodeState
from kaito_core.errors import CapacityError, FieldError, InvalidWorkspaceError, NotReadyError, ProviderError
from kaito_core.reconcile.actions import Apply
from kaito_core.reconcile.plan import plan_failure

VOLUME = {"source": {"name": "disk", "volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}}}
PRIVATE = {"source": {"name": "secret", "image": "registry.example/secret:1", "imagePullSecrets": ["pull"]}}
TEMPLATE = {"spec": {"containers": [{"name": "main", "image": "registry.example/llm:1"}]}}
EMPTIED = {"serving.json": '{"generation": 1, "adapters": []}'}

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("inference", "order"),
    [
        ({"preset": {"name": "one-gpu"}}, ["ConfigMap demo-serving", "Service demo", "Deployment demo"]),
        (
            {"preset": {"name": "spread"}},
            ["ConfigMap demo-serving", "Service demo", "Service demo-headless", "StatefulSet demo"],
        ),
        ({"template": TEMPLATE}, ["Service demo", "Deployment demo"]),
    ],
    ids=["preset", "distributed", "template"],
)
def test_everything_is_created_at_once_the_workload_last(
    world: Make, inference: dict[str, Any], order: list[str]
) -> None:
    assert world(inference).actions() == [f"apply {child}" for child in order]


@pytest.mark.parametrize("preset", ["one-gpu", "cpu", "four-gpus", "spread"])
def test_nothing_is_done_once_all_is_as_it_should_be(world: Make, adapters: Make, preset: str) -> None:
    w = world(adapters(preset, VOLUME, PRIVATE, style=0.5), count=2)
    w.settle()
    before = copy.deepcopy(w.document["status"])
    again = w.step()
    assert (again.actions, again.events, again.status) == ((), (), before)
    assert again.status["state"] == "Ready"
    assert again.wake_after_seconds is None


def test_another_kind_of_workload_replaces_the_first(world: Make) -> None:
    w = world({"preset": {"name": "spread"}}, count=2)
    w.settle()
    w.edit(preset={"name": "one-gpu"})
    assert w.actions()[:2] == ["delete Service demo-headless", "delete StatefulSet demo"]
    w.settle()
    assert set(w.children) == {
        *(("ConfigMap", "demo-serving"), ("Service", "demo")),
        *(("PodDisruptionBudget", "demo"), ("Deployment", "demo")),
    }


def test_a_workload_is_not_deleted_for_one_that_cannot_start(world: Make) -> None:
    w = world({"preset": {"name": "spread"}}, count=2)
    w.settle()
    w.edit(preset={"name": "one-gpu"})
    w.nodes = NodeState((), "NodesNotReady", "none")
    assert not [action for action in w.actions() if action.startswith("delete")]


def test_nothing_is_deleted_that_is_not_ours(world: Make) -> None:
    w = world()
    w.settle()
    for name, owners in (("loose", []), ("theirs", [{"kind": "Workspace", "name": "demo", "uid": "another-uid"}])):
        metadata = {"name": name, "uid": name, "labels": {"kaito.sh/workspace": "demo"}, "ownerReferences": owners}
        w.children["ConfigMap", name] = {"kind": "ConfigMap", "metadata": metadata}
    assert w.actions() == []


@pytest.mark.parametrize("kind", ["ConfigMap", "Service", "Deployment"])
def test_an_object_of_another_owner_is_not_taken_over(world: Make, kind: str) -> None:
    w = world()
    w.settle()
    name = "demo-serving" if kind == "ConfigMap" else "demo"
    w.child(kind, name)["metadata"]["ownerReferences"] = [{"kind": "Rollout", "name": "shop", "uid": "x"}]
    with pytest.raises(NotReadyError) as caught:
        w.plan()
    assert caught.value.reason == "NameTaken"
    assert str(caught.value) == (
        f"{kind} '{name}' belongs to Rollout 'shop'; rename this Workspace or remove that {kind}"
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w.children.pop(("Service", "demo")),
        lambda w: w.child("Service")["spec"].update(type="LoadBalancer"),
        lambda w: w.child("Deployment")["spec"].update(replicas=7),
        lambda w: w.child("Deployment")["spec"]["template"]["spec"]["containers"][0].update(image="x"),
        lambda w: w.child("Deployment")["spec"]["template"]["spec"]["initContainers"].pop(0),
        lambda w: w.child("Deployment")["spec"]["template"]["spec"].pop("tolerations"),
        lambda w: w.child("ConfigMap", "demo-serving").update(
            data={"serving.json": '{"generation": 1, "adapters": []}'}
        ),
    ],
    ids=["deleted", "service type", "replicas", "image", "init container", "tolerations", "configuration"],
)
def test_changes_by_others_are_reverted(world: Make, adapters: Make, spoil: Callable[[Any], object]) -> None:
    w = world(adapters(style=0.5))
    w.settle()
    spoil(w)
    assert [action for action in w.plan().actions if isinstance(action, Apply)]


def test_what_others_add_is_left_alone(world: Make) -> None:
    w = world()
    w.settle()
    live = w.child("Deployment")
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "3"
    live["spec"]["template"]["spec"]["containers"].append({"name": "mesh", "image": "mesh:1"})
    live["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/restartedAt": "now"}
    assert w.actions() == []


def test_a_template_is_not_applied_again_for_what_the_server_drops_or_rewrites(world: Make) -> None:
    resources = {"limits": {"memory": "1024Mi", "cpu": 1}}
    template = {"spec": {"containers": [{"name": "main", "image": "x", "resources": resources, "colour": "red"}]}}
    w = world({"template": template})
    w.settle()
    (main,) = w.child("Deployment")["spec"]["template"]["spec"]["containers"]
    del main["colour"]
    main["resources"] = {"limits": {"memory": "1Gi", "cpu": "1"}}
    assert w.actions() == []
    main["image"] = "y"
    assert w.actions() == ["apply Deployment demo"]


def test_a_template_keeps_its_own_words(world: Make) -> None:
    template = {
        "metadata": {"labels": {"team": "a"}},
        "spec": {
            "containers": [{"name": "main", "image": "x"}],
            "tolerations": [{"key": "mine", "operator": "Exists"}],
            "affinity": {"podAffinity": {}},
        },
    }
    w = world({"template": template}, count=2, labelSelector={"matchLabels": {"pool": "a"}})
    before = copy.deepcopy(w.document)
    w.step()
    assert w.document["inference"] == before["inference"]
    pod = w.child("Deployment")["spec"]["template"]
    assert pod["metadata"]["labels"] == {"team": "a", "kaito.sh/workspace": "demo"}
    assert pod["spec"]["tolerations"][0] == {"key": "mine", "operator": "Exists"}
    assert set(pod["spec"]["affinity"]) == {"podAffinity", "nodeAffinity"}


@pytest.mark.parametrize(
    ("error", "status", "reason", "state", "wakes"),
    [
        (NotReadyError("NameTaken", "taken", 60), "False", "NameTaken", "NotReady", True),
        (CapacityError("quota exceeded"), "False", "InsufficientCapacity", "NotReady", True),
        (ProviderError("500 from the cloud"), "Unknown", "NodeProviderFailed", "NotReady", True),
        (InvalidWorkspaceError([]), "False", "InvalidWorkspace", "Failed", False),
    ],
)
def test_a_failed_pass_keeps_what_was_observed_last(
    world: Make, adapters: Make, error: Any, status: str, reason: str, state: str, wakes: bool
) -> None:
    w = world(adapters(style=0.5))
    w.settle()
    before = w.document["status"]
    planned = plan_failure(w.document, error, w.now)
    assert w.condition("WorkspaceSucceeded", planned)[:2] == (status, reason)
    assert w.condition("InferenceReady", planned) == w.condition("InferenceReady")
    assert (planned.status["state"], planned.wake_after_seconds is not None) == (state, wakes)
    for key in ("workerNodes", "adapters", "endpoint"):
        assert planned.status[key] == before[key]
    w.document["status"] = planned.status
    assert plan_failure(w.document, error, w.now).events == ()


def test_missing_capacity_is_reported_for_the_nodes_too(world: Make) -> None:
    """People wait for ResourceReady, whichever way a provider reports."""
    w = world()
    planned = plan_failure(w.document, CapacityError("quota exceeded"), w.now)
    for condition in ("ResourceReady", "NodeClaimReady", "WorkspaceSucceeded"):
        assert w.condition(condition, planned)[:2] == ("False", "InsufficientCapacity")
        assert "quota exceeded" in w.condition(condition, planned)[2]
    assert [event.reason for event in planned.events] == ["InsufficientCapacity"]


def test_a_failed_pass_of_a_workspace_that_was_never_valid(world: Make) -> None:
    planned = plan_failure({"metadata": {}, "status": {"conditions": None}}, InvalidWorkspaceError([]), world().now)
    assert planned.status["state"] == "Failed"


def test_ready_is_what_the_summary_is(world: Make) -> None:
    """Tools that know no Workspace (kstatus) judge it by Ready, from the first status to the last."""
    w = world()
    faults = (
        InvalidWorkspaceError([FieldError("inference", "is wrong")]),
        NotReadyError("NameTaken", "taken", 60),
        CapacityError("quota exceeded"),
        ProviderError("500 from the cloud"),
    )
    plans = [plan_failure(w.document, fault, w.now) for fault in faults]
    assert {w.condition("Ready", planned)[0] for planned in plans} == {"False", "Unknown"}
    plans.append(w.step())
    assert w.condition("Ready", plans[-1])[0] == "Unknown"
    w.settle()
    plans += [w.plan(), plan_failure(w.document, faults[0], w.now)]
    assert [w.condition("Ready", planned)[0] for planned in plans[-2:]] == ["True", "False"]
    for planned in plans:
        assert w.condition("Ready", planned) == w.condition("WorkspaceSucceeded", planned)


def test_events_stand_for_changes(world: Make) -> None:
    w = world()
    reasons = []
    for _ in range(5):
        reasons += [event.reason for event in w.step().events]
        w.run_pods()
    assert reasons == ["NodesReady", "InferenceReady", "WorkspaceSucceeded"]


def test_no_node_has_become_ready_where_none_was_asked_for(world: Make) -> None:
    w = world()
    w.nodes = NodeState(())
    reasons = []
    for _ in range(5):
        reasons += [event.reason for event in w.step().events]
        w.run_pods()
    assert reasons == ["InferenceReady", "WorkspaceSucceeded"]


@st.composite
def inferences(draw: st.DrawFn) -> dict[str, Any]:
    """A preset with up to four adapters of any source and blends of them, or a template."""
    if draw(st.integers(0, 5)) == 0:
        return {"template": TEMPLATE}
    names = draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=4, unique=True))
    origins: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
        [
            {"image": "registry.example/x:1"},
            {"image": "registry.example/y@sha256:" + "0" * 64, "imagePullSecrets": ["pull"]},
            {"volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}},
            {"urls": ["https://files.example/x.tar"]},
            {"uri": "hf://owner/name"},
        ]
    )
    strengths = st.floats(-10, 10) | st.sampled_from(["0.5", "-1e-3", 0])
    adapters = [{"source": {"name": name, **draw(origins)}, "strength": draw(strengths)} for name in names]
    blends = [{"name": "mix", "strengths": {name: draw(strengths) for name in names}}] if names else []
    preset = draw(st.sampled_from(["one-gpu", "cpu", "four-gpus", "spread"]))
    return {"preset": {"name": preset}, "adapters": adapters, "blends": blends}


@settings(max_examples=60)
@given(first=inferences(), second=inferences(), count=st.integers(1, 3))
def test_plans_are_deterministic_and_come_to_rest(
    world: Make, first: dict[str, Any], second: dict[str, Any], count: int
) -> None:
    w = world(first, count=count)
    assert w.plan() == w.plan()
    w.settle()
    assert w.step().actions == ()
    w.document["inference"] = second
    w.document["metadata"]["generation"] += 1
    assert w.plan() == w.plan()
    w.settle()
    rested = w.step()
    assert (rested.actions, rested.events) == ((), ())
    # Nothing is left of the first that the second does not have.
    fresh = world(second, count=count)
    fresh.settle()
    assert set(w.children) == set(fresh.children)
    assert w.child("Service")["spec"] == fresh.child("Service")["spec"]


@pytest.mark.parametrize(
    ("service", "warned"),
    [
        ({"type": "LoadBalancer"}, True),
        ({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}, False),
        ({"type": "ClusterIP"}, False),
    ],
)
def test_a_model_that_anybody_may_use_gets_one_warning(world: Make, service: dict[str, Any], warned: bool) -> None:
    w = world({"preset": {"name": "one-gpu"}, "service": service})
    first = [event.reason for event in w.step().events]
    assert ("ServedWithoutKey" in first) is warned
    w.settle()
    assert w.step().events == ()


def test_a_first_pass_that_ends_early_leaves_no_condition_out(world: Make) -> None:
    w = world()
    planned = plan_failure(w.document, InvalidWorkspaceError([FieldError("a", "is wrong")]), w.now)
    assert w.condition("ResourceReady", planned) == w.condition("InferenceReady", planned)
    assert w.condition("InferenceReady", planned) == (
        "Unknown",
        "NotReached",
        "not looked at yet: InvalidWorkspace comes first",
    )
    assert [event.reason for event in planned.events] == ["InvalidWorkspace"]
    w.document["status"] = planned.status
    w.settle()
    assert {w.condition(kind)[0] for kind in ("Ready", "ResourceReady", "InferenceReady")} == {"True"}
