"""A Workspace comes up, is edited, is refused, idles and goes."""

from functools import partial

import pytest

from kaito_core.api import KubeObject
from scenarios.support.state import serving_config, settled, template
from scenarios.support.world import World, adapter, conditions, workspace

__all__ = ["SCENARIOS"]


def a_workspace_becomes_its_children(world: World) -> None:
    created = world.apply(workspace("w", adapters=[adapter("style", "0.5")]))
    document = world.wait_state("w", "Ready")
    for kind, name in (("configmaps", "w-serving"), ("services", "w"), ("deployments", "w")):
        owner = world.existing(kind, name)["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Workspace", "w", created["metadata"]["uid"])
        assert owner["controller"] is True
    port = world.existing("services", "w")["spec"]["ports"][0]
    assert (port["port"], port["targetPort"]) == (80, 5000)
    assert serving_config(world, "w")["adapters"][0]["strength"] == 0.5
    assert [step["name"] for step in template(world, "w")["spec"]["initContainers"]] == ["weights", "adapter-style"]
    status = document["status"]
    assert status["endpoint"] == f"http://w.{world.namespace}.svc.cluster.local/v1"
    assert {item["status"] for item in status["conditions"]} == {"True"}
    assert {item["observedGeneration"] for item in status["conditions"]} == {document["metadata"]["generation"]}
    assert not document["metadata"].get("finalizers") and not document["metadata"].get("annotations")
    assert settled(world, "w", {"style": ("0.5", "Ready")})["adapters"][0]["replicas"] == 1


def image_and_count_change_the_workload(world: World) -> None:
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.apply(workspace("w", resource={"count": 3}))
    world.wait_state("w", "Ready")
    assert world.existing("deployments", "w")["spec"]["replicas"] == 3
    world.apply(workspace("w", resource={"count": 3}, preset_options={"image": "registry.example/weights:1"}))
    world.wait_state("w", "Ready")
    steps = template(world, "w")["spec"]["initContainers"]
    assert steps[0]["image"] == "registry.example/weights:1"


def a_template_of_the_users_own_is_served(world: World) -> None:
    containers = [{"name": "mine", "image": "registry.example/mine:1"}]
    world.apply(workspace("w", inference={"template": {"spec": {"containers": containers}}}))
    world.wait_state("w", "Ready")
    assert [item["image"] for item in template(world, "w")["spec"]["containers"]] == ["registry.example/mine:1"]
    assert world.get("configmaps", "w-serving") is None


def deletion_leaves_nothing(world: World) -> None:
    if not world.cluster.has_gc:
        pytest.skip("this cluster does not collect dependents")
    world.apply(workspace("w", adapters=[adapter("style")]))
    world.wait_state("w", "Ready")
    assert world.delete("workspaces", "w") is True
    assert world.delete("workspaces", "w") is False
    kinds = ("workspaces", "deployments", "services", "configmaps", "pods")
    names = {"w", "w-serving"}
    world.wait("all is gone", lambda: not any(world.get(kind, name) for kind in kinds for name in names))
    assert world.pods("w") == []


def a_workspace_can_be_made_again(world: World) -> None:
    if not world.cluster.has_gc:
        pytest.skip("this cluster does not collect dependents")
    first = world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.delete("workspaces", "w")
    again = world.apply(workspace("w"))
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    world.wait_state("w", "Ready")
    owner = world.existing("deployments", "w")["metadata"]["ownerReferences"][0]
    assert owner["uid"] == again["metadata"]["uid"]


def children_that_were_changed_or_deleted_come_back(world: World) -> None:
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.delete("services", "w")
    world.wait("the Service is back", lambda: world.get("services", "w"))
    scale = {"spec": {"replicas": 5}}
    world.cluster.patch("deployments", "w", scale, world.namespace)
    world.wait("the replicas are back", lambda: world.existing("deployments", "w")["spec"]["replicas"] == 1)
    world.cluster.patch("deployments", "w", {"metadata": {"labels": None}}, world.namespace)
    world.wait("the labels are back", lambda: world.existing("deployments", "w")["metadata"].get("labels"))
    world.cluster.patch("deployments", "w", scale, world.namespace)
    world.wait("it is watched again", lambda: world.existing("deployments", "w")["spec"]["replicas"] == 1)


def idle_and_started_again_it_writes_nothing(world: World) -> None:
    world.apply(workspace("w", adapters=[adapter("style", "0.5")]))
    world.apply(workspace("bad", "unknown"))
    world.wait_state("w", "Ready")
    world.wait_state("bad", "Failed")
    settled(world, "w", {"style": ("0.5", "Ready")})
    for name in ("w", "bad"):
        world.cause_pass(name)
    before, asked = world.snapshot(), world.runtimes.asked
    world.stop()
    world.start()
    world.wait("both were looked at", lambda: world.passes.of("w"))
    assert world.runtimes.asked == asked + 1  # a new process has to ask once
    assert world.snapshot() == before
    world.cause_pass("w")
    assert world.runtimes.asked == asked + 1
    after = world.snapshot()
    assert {kind for kind, name in after if after[kind, name] != before[kind, name]} == {"workspaces"}  # our own label


def invalid_workspaces_say_what_to_edit(world: World) -> None:
    blend = {"name": "mix", "strengths": {"other": 1}}  # the CRD has no rule for it
    scheme = {"source": {"name": "far", "uri": "gopher://far/away"}}
    cases = {
        "preset": (workspace("preset", "no-such-preset"), "UnknownPreset", "inference.preset.name"),
        "scheme": (workspace("scheme", adapters=[scheme]), "UnknownAdapterSource", "inference.adapters[0].source.uri"),
        "blend": (workspace("blend", blends=[blend]), "InvalidWorkspace", "inference.blends[0].strengths.other"),
    }
    for name, (document, reason, field) in cases.items():
        world.apply(document)
        failed = world.wait_reason(name, "WorkspaceSucceeded", reason)
        assert failed["status"] == "False" and failed["message"].startswith(field)
        state = world.wait_state(name, "Failed")
        assert state["status"]["observedGeneration"] == state["metadata"]["generation"]
    known = conditions(world.get("workspaces", "preset"))["WorkspaceSucceeded"]["message"]
    assert "on-cpu" in known  # what there is to choose from
    for name in cases:
        world.wait("an event", partial(world.events, name))
        assert [event["type"] for event in world.events(name)] == ["Warning"]
        assert world.get("deployments", name) is None
    world.apply(workspace("preset"))
    world.wait_state("preset", "Ready")


def an_edit_that_is_invalid_leaves_what_runs(world: World) -> None:
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    before = template(world, "w")
    world.apply(workspace("w", "no-such-preset"))
    document = world.wait_state("w", "Failed")
    assert template(world, "w") == before
    assert conditions(document)["InferenceReady"]["status"] == "True"  # what was seen last: the pods do serve
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")


def a_foreign_object_of_the_same_name_is_left_alone(world: World) -> None:
    foreign = _foreign_deployment("w")
    before = world.apply(foreign, manager="another")
    world.apply(workspace("w"))
    taken = world.wait_reason("w", "WorkspaceSucceeded", "NameTaken")
    assert "Deployment 'w'" in taken["message"]
    assert world.existing("deployments", "w")["metadata"]["generation"] == before["metadata"]["generation"]
    assert world.existing("deployments", "w")["spec"]["template"] == before["spec"]["template"]
    assert world.get("configmaps", "w-serving") is None
    world.delete("deployments", "w")
    world.wait("it is gone", lambda: not world.get("deployments", "w"))
    world.cause_pass("w")
    world.wait_state("w", "Ready")


def _foreign_deployment(name: str) -> KubeObject:
    labels = {"app": "theirs"}
    containers = [{"name": "theirs", "image": "registry.example/theirs:1"}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }


SCENARIOS = (
    a_workspace_becomes_its_children,
    image_and_count_change_the_workload,
    a_template_of_the_users_own_is_served,
    deletion_leaves_nothing,
    a_workspace_can_be_made_again,
    children_that_were_changed_or_deleted_come_back,
    idle_and_started_again_it_writes_nothing,
    invalid_workspaces_say_what_to_edit,
    an_edit_that_is_invalid_leaves_what_runs,
    a_foreign_object_of_the_same_name_is_left_alone,
)
