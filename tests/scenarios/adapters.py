"""Adapters come, change and go under running pods."""

from kaito_core.api.workload import SERVING_GENERATION_ANNOTATION
from scenarios.support.state import is_true, serving_config, settled, template, uids
from scenarios.support.world import World, adapter, workspace

__all__ = ["SCENARIOS"]


def strengths_change_under_running_pods(world: World) -> None:
    world.apply(workspace("w", adapters=[adapter("style", "0.5")]))
    world.wait_state("w", "Ready")
    settled(world, "w", {"style": ("0.5", "Ready")})
    before = template(world, "w"), uids(world, "w")
    world.apply(workspace("w", adapters=[adapter("style", "0.25")]))
    settled(world, "w", {"style": ("0.25", "Ready")})
    assert serving_config(world, "w")["adapters"][0]["strength"] == 0.25
    assert (template(world, "w"), uids(world, "w")) == before
    assert all(SERVING_GENERATION_ANNOTATION in pod["metadata"]["annotations"] for pod in world.pods("w"))


def an_adapter_joins_running_pods(world: World) -> None:
    world.apply(workspace("w", resource={"count": 2}))
    world.wait_state("w", "Ready")
    before = template(world, "w"), uids(world, "w")
    world.apply(workspace("w", resource={"count": 2}, adapters=[adapter("late")]))
    status = settled(world, "w", {"late": ("1", "Ready")})
    assert status["adapters"][0]["replicas"] == 2
    assert (template(world, "w"), uids(world, "w")) == before
    for pod in world.pods("w"):
        late = pod["spec"]["ephemeralContainers"]
        assert [container["image"] for container in late] == ["registry.example/late:1"]


def an_adapter_is_replaced_under_its_name(world: World) -> None:
    world.apply(workspace("w", adapters=[adapter("style", image="registry.example/style:1")]))
    before = settled(world, "w", {"style": ("1", "Ready")})["adapters"][0]["digest"]
    before = template(world, "w"), uids(world, "w")
    world.apply(workspace("w", adapters=[adapter("style", image="registry.example/style:2")]))
    world.wait(
        "the other files are served",
        lambda: world.existing("workspaces", "w")["status"]["adapters"][0]["digest"] not in ("", before),
    )
    settled(world, "w", {"style": ("1", "Ready")})
    assert (template(world, "w"), uids(world, "w")) == before


def an_adapter_leaves_running_pods(world: World) -> None:
    world.apply(workspace("w", adapters=[adapter("style"), adapter("tone")]))
    settled(world, "w", {"style": ("1", "Ready"), "tone": ("1", "Ready")})
    before = template(world, "w"), uids(world, "w")
    world.apply(workspace("w", adapters=[adapter("tone")]))
    settled(world, "w", {"tone": ("1", "Ready")})
    assert [served["name"] for served in serving_config(world, "w")["adapters"]] == ["tone"]
    assert (template(world, "w"), uids(world, "w")) == before


def the_next_rollout_takes_up_the_adapters(world: World) -> None:
    world.apply(workspace("w", adapters=[adapter("old")]))
    settled(world, "w", {"old": ("1", "Ready")})
    world.apply(workspace("w", adapters=[adapter("new")]))
    settled(world, "w", {"new": ("1", "Ready")})
    options = {"image": "registry.example/weights:2"}
    world.apply(workspace("w", adapters=[adapter("new")], preset_options=options))
    steps = world.wait(
        "the new template",
        lambda: (
            steps if (steps := template(world, "w")["spec"]["initContainers"])[0]["image"] == options["image"] else None
        ),
    )
    assert [step["name"] for step in steps] == ["weights", "adapter-new"]


def an_adapter_that_cannot_be_loaded_is_reported(world: World) -> None:
    world.runtimes.broken["style"] = "rank must be 1 or more, got 0"
    world.apply(workspace("w", adapters=[adapter("style")]))
    failed = world.wait_reason("w", "WorkspaceSucceeded", "AdapterFailed")
    assert failed["status"] == "False" and "rank must be 1 or more, got 0" in failed["message"]
    assert is_true(world, "w", "InferenceReady")
    world.runtimes.broken.clear()
    world.cause_pass("w")
    world.wait_state("w", "Ready")


def strengths_outside_the_usual_are_warned_of_once(world: World) -> None:
    world.apply(workspace("w", adapters=[adapter("style", "-1.5")]))
    settled(world, "w", {"style": ("-1.5", "Ready")})
    world.cause_pass("w")
    warnings = [event for event in world.events("w") if event["type"] == "Warning"]
    assert [event["reason"] for event in warnings] == ["StrengthOutsideUnitRange"]


SCENARIOS = (
    strengths_change_under_running_pods,
    an_adapter_joins_running_pods,
    an_adapter_is_replaced_under_its_name,
    an_adapter_leaves_running_pods,
    the_next_rollout_takes_up_the_adapters,
    an_adapter_that_cannot_be_loaded_is_reported,
    strengths_outside_the_usual_are_warned_of_once,
)
