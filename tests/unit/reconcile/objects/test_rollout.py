"""How pods are replaced: strategies, budgets, and the pods of a distributed model, which go together."""

from collections.abc import Callable
from typing import Any

import pytest

from kaito_core.errors import InvalidWorkspaceError
from kaito_core.reconcile.observed import outdated_pods
from kaito_core.settings import Settings

Make = Callable[..., Any]

STRATEGY, SURGE = "kaito.sh/strategy", "kaito.sh/max-surge"


def rolling(surge: int | str, unavailable: int) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


def annotated(world: Make, inference: Any = None, count: int = 1, **annotations: str) -> Any:
    w = world(inference, count=count)
    names = {"strategy": STRATEGY, "surge": SURGE}
    w.document["metadata"]["annotations"] = {names[key]: value for key, value in annotations.items()}
    return w


@pytest.mark.parametrize(
    ("annotations", "strategy"),
    [
        ({}, rolling(0, 1)),
        ({"strategy": "RollingUpdate"}, rolling(0, 1)),
        ({"surge": "2"}, rolling(2, 0)),
        ({"surge": "0"}, rolling(0, 1)),
        ({"surge": "25%"}, rolling("25%", 0)),
        ({"surge": "0%"}, rolling("0%", 1)),
        ({"strategy": "Recreate"}, {"type": "Recreate"}),
    ],
)
@pytest.mark.parametrize("template", [False, True], ids=["preset", "template"])
def test_a_workspace_chooses_its_strategy(
    world: Make, annotations: dict[str, str], strategy: dict[str, Any], template: bool
) -> None:
    own = {"template": {"spec": {"containers": [{"name": "main", "image": "registry.example/llm:1"}]}}}
    w = annotated(world, own if template else None, **annotations)
    w.step()
    assert w.child("Deployment")["spec"]["strategy"] == strategy


def test_the_operator_chooses_for_those_that_do_not(world: Make) -> None:
    w = annotated(world)
    w.settings = Settings(max_surge=3)
    w.step()
    assert w.child("Deployment")["spec"]["strategy"] == rolling(3, 0)
    w.document["metadata"]["annotations"] = {SURGE: "0"}
    w.step()
    assert w.child("Deployment")["spec"]["strategy"] == rolling(0, 1)


@pytest.mark.parametrize(
    ("preset", "annotations", "message"),
    [
        ("one-gpu", {"strategy": "recreate"}, f"[{STRATEGY}] must be RollingUpdate or Recreate, got 'recreate'"),
        ("one-gpu", {"surge": "-1"}, f"[{SURGE}] must be a number of pods or a percentage up to 100%, got '-1'"),
        ("one-gpu", {"surge": "101%"}, f"[{SURGE}] must be a number of pods or a percentage up to 100%, got '101%'"),
        ("one-gpu", {"surge": ""}, f"[{SURGE}] must be a number of pods or a percentage up to 100%, got ''"),
        ("one-gpu", {"surge": "٣"}, f"[{SURGE}] must be a number of pods or a percentage up to 100%, got '٣'"),
        ("one-gpu", {"surge": "99999"}, f"[{SURGE}] must be a number of pods or a percentage up to 100%, got '99999'"),
        (
            "one-gpu",
            {"surge": "1", "strategy": "Recreate"},
            f"[{SURGE}] must be left out where {STRATEGY} is Recreate: all pods are replaced at once",
        ),
        (
            "spread",
            {"surge": "1"},
            f"[{SURGE}] must be left out for a distributed preset, whose pods are replaced together",
        ),
        (
            "spread",
            {"strategy": "RollingUpdate"},
            f"[{STRATEGY}] must be Recreate or left out for a distributed preset: its pods share one model",
        ),
    ],
)
def test_refused_annotations(world: Make, preset: str, annotations: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidWorkspaceError) as caught:
        annotated(world, {"preset": {"name": preset}}, count=2, **annotations).plan()
    assert str(caught.value) == f"metadata.annotations{message}"


def test_replicas_have_a_disruption_budget_and_one_alone_has_none(world: Make) -> None:
    w = world(count=2)
    assert w.actions() == [
        *("apply ConfigMap demo-serving", "apply Service demo"),
        *("apply PodDisruptionBudget demo", "apply Deployment demo"),
    ]
    w.settle()
    budget = w.child("PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert (
        budget["selector"]["matchLabels"].items()
        <= w.child("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    )
    w.document["resource"] = {"count": 1}
    w.document["metadata"]["generation"] += 1
    assert "delete PodDisruptionBudget demo" in w.actions()
    w.settle()
    assert ("PodDisruptionBudget", "demo") not in w.children


def test_a_distributed_model_has_no_budget_of_pods(world: Make) -> None:
    w = world({"preset": {"name": "spread"}}, count=2)
    w.settle()
    assert ("PodDisruptionBudget", "demo") not in w.children  # its pods are one replica


def test_the_pods_of_a_distributed_model_are_replaced_together(world: Make) -> None:
    w = world({"preset": {"name": "spread"}}, count=2)
    w.settle()
    assert w.child("StatefulSet")["spec"]["updateStrategy"] == {"type": "OnDelete"}
    before = {name: pod["metadata"]["uid"] for name, pod in w.pods.items()}
    w.edit(preset={"name": "spread", "presetOptions": {"image": "registry.example/weights:2"}})
    assert "delete Pod demo-0" not in w.actions()  # not before the controller has seen the new form
    w.step()
    w.run_pods()
    assert w.actions() == ["delete Pod demo-0", "delete Pod demo-1"]
    w.settle()
    assert {name for name, pod in w.pods.items() if pod["metadata"]["uid"] == before[name]} == set()
    assert w.actions() == []


def test_pods_of_a_model_are_not_replaced_while_nodes_are_missing(world: Make) -> None:
    w = world({"preset": {"name": "spread"}}, count=2)
    w.settle()
    w.edit(preset={"name": "spread", "presetOptions": {"image": "registry.example/weights:2"}})
    w.step()
    w.run_pods()
    w.nodes = type(w.nodes)((), "NodesNotReady", "none")
    assert w.actions() == []


def test_pods_stay_while_their_controller_is_behind() -> None:
    """A change that was taken back at once: what the controller still says is of the form between."""
    owners = [{"kind": "StatefulSet", "uid": "u"}]
    pod = {"metadata": {"name": "demo-0", "labels": {"controller-revision-hash": "first"}, "ownerReferences": owners}}
    status = {"observedGeneration": 2, "updateRevision": "second"}
    assert outdated_pods({"metadata": {"uid": "u", "generation": 2}, "status": status}, [pod]) == [pod]
    assert outdated_pods({"metadata": {"uid": "u", "generation": 3}, "status": status}, [pod]) == []
    assert outdated_pods({"metadata": {"uid": "u", "generation": 1}}, [pod]) == []


def test_pods_that_somebody_else_has_labelled_as_ours_are_left_alone(world: Make) -> None:
    w = world({"preset": {"name": "spread"}}, count=2)
    w.settle()
    w.edit(preset={"name": "spread", "presetOptions": {"image": "registry.example/weights:2"}})
    w.step()
    w.run_pods()
    w.pods["demo-1"]["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "uid": "theirs"}]
    assert w.actions() == ["delete Pod demo-0"]


def test_ranks_of_another_form_do_not_meet(world: Make) -> None:
    def rendezvous(w: Any) -> str:
        (runtime,) = w.child("StatefulSet")["spec"]["template"]["spec"]["containers"]
        return next(word for word in runtime["command"] if word.startswith("--rdzv-id="))

    w = world({"preset": {"name": "spread"}}, count=2)
    w.settle()
    first = rendezvous(w)
    w.edit(preset={"name": "spread", "presetOptions": {"image": "registry.example/weights:2"}})
    w.settle()
    assert rendezvous(w) != first
