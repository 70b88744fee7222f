"""Scenarios of adapters and strengths: what changes in running pods, what needs new ones, and the status of both."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kaito_core.reconcile.actions import AddContainer, Annotate
from kaito_core.reconcile.observed import AdapterReport

VOLUME = {"source": {"name": "disk", "volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}}}
PRIVATE = {"source": {"name": "secret", "image": "registry.example/secret:1", "imagePullSecrets": ["pull"]}}

Make = Callable[..., Any]


def test_a_change_of_strength_touches_the_configuration_alone(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5, tone=1))
    w.settle()
    template, pods = copy.deepcopy(w.child("Deployment")), set(w.pods)
    w.edit(**adapters(style=-0.25, tone=1))
    assert w.actions()[0] == "apply ConfigMap demo-serving"
    assert not [action for action in w.actions() if "Deployment" in action]
    w.settle()
    assert (w.child("Deployment"), set(w.pods)) == (template, pods)
    config = json.loads(w.child("ConfigMap", "demo-serving")["data"]["serving.json"])
    assert [adapter["strength"] for adapter in config["adapters"]] == [-0.25, 1]
    assert "-0.25" not in json.dumps(w.child("Deployment"))


def test_the_model_stays_ready_while_a_strength_changes(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5))
    w.settle()
    w.answering = False
    w.edit(**adapters(style=0.75))
    planned = w.step()
    assert w.condition("InferenceReady", planned)[0] == "True"
    # Nothing is claimed before a replica has reported it.
    assert planned.status["adapters"][0]["state"] == "Loading"
    assert planned.wake_after_seconds == 2.0


def test_pods_are_annotated_once_for_a_new_configuration(world: Make, adapters: Make) -> None:
    w = world(adapters("cpu", style=0.5), count=2)
    w.settle()
    w.edit(**adapters("cpu", style=0.75))
    w.answering = False  # runtimes too busy to answer get the annotation as well
    first = [action for action in w.step().actions if isinstance(action, Annotate)]
    assert {action.pod for action in first} == set(w.pods)
    assert len({action.value for action in first}) == 1
    assert w.actions() == []


def test_a_pod_with_an_old_configuration_is_annotated(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5))
    w.settle()
    w.edit(**adapters(style=0.75))
    w.step()
    (pod,) = w.pods
    del w.pods[pod]["metadata"]["annotations"]
    stale = replace(w.observed(), reports={pod: AdapterReport(1, ())})
    w.observed = lambda: stale
    assert w.actions() == [f"annotate {pod}"]


def test_a_new_image_adapter_joins_running_pods(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5))
    w.settle()
    before = copy.deepcopy(w.child("Deployment"))
    w.edit(**adapters(style=0.5, tone=1))
    (pod,) = w.pods
    assert w.actions()[:2] == ["apply ConfigMap demo-serving", f"add adapter-tone to {pod}"]
    (added,) = [action for action in w.plan().actions if isinstance(action, AddContainer)]
    assert added.container["image"] == "registry.example/tone:1"
    assert "cp -r /data/." in added.container["command"][-1]
    w.settle()
    assert w.child("Deployment") == before
    assert set(w.pods) == {pod}
    assert [row["state"] for row in w.document["status"]["adapters"]] == ["Ready", "Ready"]


def test_pods_that_start_or_end_get_no_container(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5))
    w.settle()
    (pod,) = w.pods.values()
    w.edit(**adapters(style=0.5, tone=1))
    pod["status"]["phase"] = "Pending"
    assert not [action for action in w.plan().actions if isinstance(action, AddContainer)]
    pod["status"]["phase"] = "Running"
    pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
    assert not [action for action in w.plan().actions if isinstance(action, AddContainer)]


@pytest.mark.parametrize("extra", [VOLUME, PRIVATE], ids=["volume", "pull secret"])
def test_what_a_running_pod_cannot_be_given_needs_a_new_template(
    world: Make, adapters: Make, extra: dict[str, Any]
) -> None:
    w = world(adapters(style=0.5))
    w.settle()
    w.edit(**adapters("one-gpu", extra, style=0.5))
    actions = w.actions()
    assert "apply Deployment demo" in actions
    assert not [action for action in actions if action.startswith("add ")]
    w.settle()
    assert w.document["status"]["state"] == "Ready"


@pytest.mark.parametrize("gone", [VOLUME, PRIVATE, None], ids=["volume", "pull secret", "image"])
def test_a_removed_adapter_leaves_the_template_alone(world: Make, adapters: Make, gone: dict[str, Any] | None) -> None:
    w = world(adapters("one-gpu", *([gone] if gone else []), style=0.5, tone=1))
    w.settle()
    before = copy.deepcopy(w.child("Deployment"))
    w.edit(**adapters(style=0.5))
    assert "apply Deployment demo" not in w.actions()
    w.settle()
    assert w.child("Deployment") == before
    assert [row["name"] for row in w.document["status"]["adapters"]] == ["style"]


def test_the_template_takes_up_adapters_with_its_next_change(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5, old=1))
    w.settle()
    w.edit(**adapters(style=0.5, tone=1))
    w.settle()
    w.settings = w.settings.model_copy(update={"runtime_image": "registry.example/runtime:2"})
    assert w.actions()[0] == "apply Deployment demo"
    w.settle()
    names = [c["name"] for c in w.child("Deployment")["spec"]["template"]["spec"]["initContainers"]]
    assert names == ["weights", "adapter-style", "adapter-tone"]


def test_a_replaced_adapter_is_fetched_beside_the_old_one(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5))
    w.settle()
    replaced = {"source": {"name": "style", "image": "registry.example/style:2"}, "strength": 0.5}
    w.edit(**adapters("one-gpu", replaced))
    (added,) = [action for action in w.plan().actions if isinstance(action, AddContainer)]
    (init,) = [
        c
        for c in w.child("Deployment")["spec"]["template"]["spec"]["initContainers"]
        if c["name"].startswith("adapter-")
    ]
    assert added.container["name"] != init["name"]
    assert added.container["env"] != init["env"]
    # The report of the earlier configuration says that "style" is applied, which had other files.
    (pod,) = w.pods
    earlier = AdapterReport(1, ({"name": "style", "strength": 0.5, "state": "Ready"},))
    stale = replace(w.observed(), reports={pod: earlier})
    w.observed = lambda: stale
    assert w.plan().status["adapters"][0]["state"] == "Loading"


def test_strengths_that_upstream_refuses_get_one_warning(world: Make, adapters: Make) -> None:
    w = world(adapters(style=-1, tone=1, loud=2.5))
    (warning, *_) = w.step().events
    assert (warning.type, warning.reason) == ("Warning", "StrengthOutsideUnitRange")
    assert warning.message == "strengths outside 0 to 1 are applied as written: 'style' (-1), 'loud' (2.5)"
    w.settle()
    assert w.step().events == ()


def test_a_failed_adapter_is_reported_and_the_others_are_served(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5, bad=1))
    w.settle()
    (pod,) = w.pods
    rows = ({"name": "style", "strength": 0.5, "state": "Ready", "digest": "sha256:1"},)
    failed = {"name": "bad", "strength": 1.0, "state": "Failed", "message": "rank 7 is not supported"}
    seen = replace(w.observed(), reports={pod: AdapterReport(1, (*rows, failed))})
    w.observed = lambda: seen
    planned = w.plan()
    assert w.condition("WorkspaceSucceeded", planned) == (
        "False",
        "AdapterFailed",
        "adapter 'bad' failed to load: rank 7 is not supported",
    )
    assert w.condition("InferenceReady", planned)[0] == "True"
    assert planned.status["adapters"] == [
        {"name": "style", "strength": "0.5", "digest": "sha256:1", "state": "Ready", "message": "", "replicas": 1},
        {
            "name": "bad",
            "strength": "1",
            "digest": "",
            "state": "Failed",
            "message": "rank 7 is not supported",
            "replicas": 0,
        },
    ]


def test_strengths_are_reported_in_full(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.12345678, tone=1.123456789))
    w.settle()
    assert [row["strength"] for row in w.document["status"]["adapters"]] == ["0.12345678", "1.123456789"]


def test_the_first_pod_of_a_distributed_model_reports_for_all(world: Make, adapters: Make) -> None:
    w = world(adapters("spread", style=0.5), count=2)
    w.settle()
    seen = w.observed()
    assert len(seen.pods) == 2
    first_alone = replace(seen, reports={"demo-0": seen.reports["demo-0"]})
    w.observed = lambda: first_alone
    (row,) = w.plan().status["adapters"]
    assert (row["state"], row["replicas"]) == ("Ready", 1)


def _block(w: Any, name: str = "style") -> None:
    """Lets the new pods of a world hang in the container that fetches an adapter."""
    for pod in w.pods.values():
        pod["status"] = {
            "phase": "Pending",
            "initContainerStatuses": [
                {"name": f"adapter-{name}", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such"}}}
            ],
        }


def _steps(w: Any) -> list[str]:
    steps = w.child("Deployment")["spec"]["template"]["spec"]["initContainers"]
    return [f"{step['name']} {step['image'].rpartition('/')[2]}" for step in steps[1:]]


def test_an_adapter_that_fails_at_the_start_does_not_keep_the_model_from_being_served(
    world: Make, adapters: Make
) -> None:
    w = world(adapters(style=0.5, tone=1))
    w.step()
    w.run_pods()
    _block(w)
    assert "apply Deployment demo" in w.actions()
    w.step()
    assert _steps(w) == ["adapter-tone tone:1"]
    w.run_pods()  # a new pod, which starts and is given what is missing
    (added,) = [action for action in w.plan().actions if isinstance(action, AddContainer)]
    assert added.container["image"] == "registry.example/style:1"
    w.settle()
    assert _steps(w) == ["adapter-tone tone:1"], "running pods are not replaced for it"


def test_a_corrected_adapter_reaches_a_pod_that_never_started(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5))
    w.step()
    w.run_pods()
    _block(w)
    corrected = {"source": {"name": "style", "image": "registry.example/style:2"}, "strength": 0.5}
    w.edit(**adapters("one-gpu", corrected))
    w.step()
    assert _steps(w) == ["adapter-style style:2"]
    w.run_pods()
    w.settle()
    assert w.document["status"]["state"] == "Ready"


def test_a_removed_adapter_that_keeps_pods_from_starting_leaves_the_template(world: Make, adapters: Make) -> None:
    """Replaced or removed live, its image is gone, and the pod is made anew from the older template."""
    w = world(adapters(style=0.5))
    w.settle()
    w.edit(**adapters(tone=1))
    w.settle()
    assert _steps(w) == ["adapter-style style:1"]
    _block(w)
    w.step()
    assert _steps(w) == ["adapter-tone tone:1"]


def test_an_adapter_with_a_volume_of_its_own_stays_in_the_template(world: Make, adapters: Make) -> None:
    w = world(adapters("one-gpu", VOLUME))
    w.step()
    w.run_pods()
    _block(w, "disk")
    assert w.actions() == []


def test_a_replica_that_keeps_the_operator_out_is_named(world: Make, adapters: Make) -> None:
    w = world(adapters(style=0.5))
    w.settle()
    w.answering = False
    w.edit(**adapters(style=0.75))
    (row,) = w.step().status["adapters"]
    (pod,) = w.pods
    assert (row["state"], row["message"]) == (
        "Loading",
        f"0 of 1 replicas have applied it; pod '{pod}' serves, but does not answer the operator on port 5000: let "
        "it in where a NetworkPolicy or a service mesh keeps it out",
    )
