"""Stories of Workspace `w`, from creation to deletion, which must end the same whatever disturbs them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kaito_core.api import KubeObject
from scenarios.support.karpenter import claims
from scenarios.support.state import add_node, end_state, left, settled
from scenarios.support.world import World, adapter, workspace

__all__ = ["FOREIGN", "LIVE_EDIT", "STORIES", "Story", "live"]

FOREIGN = "example.com/theirs"  #: name of a label and a finalizer of another client
_AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Story:
    """A story.

    Attributes:
        title: Its name in test ids.
        documents: The Workspaces that are applied, one after the other once the one before is served.
        workload: Kind of the workload.
        nodes: Names of prepared nodes.
    """

    title: str
    documents: Sequence[KubeObject]
    workload: str = "deployments"
    nodes: Sequence[str] = ()


def _nothing() -> None:
    pass


def live(story: Story, world: World, disturb: Callable[[], object] = _nothing) -> str:
    """Plays a story to its end, and returns the state before the deletion as JSON.

    Args:
        story: The story.
        world: Where it is played.
        disturb: Called after each document is applied, and after the deletion.
    """
    for name in story.nodes:
        add_node(world, name, gpus=1)
    for index, document in enumerate(story.documents):
        world.apply(document)
        disturb()
        if index == 0:
            _mark(world, "workspaces")
        world.wait_state("w", "Ready")
        if adapters := document["inference"].get("adapters", []):
            settled(world, "w", {item["source"]["name"]: (item["strength"], "Ready") for item in adapters})
        if index == 0:
            _mark(world, story.workload)
    state = json.dumps(end_state(world), sort_keys=True).replace(world.namespace, "NAMESPACE")
    for number, claim in enumerate(claims(world.cluster)):
        state = state.replace(claim["metadata"]["name"], f"CLAIM-{number}")
    for kind in ("workspaces", story.workload):
        assert world.existing(kind, "w")["metadata"]["labels"][FOREIGN] == "kept"
    world.delete("workspaces", "w")
    disturb()
    world.wait("our finalizer is off", lambda: world.existing("workspaces", "w")["metadata"]["finalizers"] == [FOREIGN])
    assert claims(world.cluster) == []
    world.patch("workspaces", "w", {"metadata": {"finalizers": None}})
    world.wait("nothing is left", lambda: not left(world))
    return state


def _mark(world: World, kind: str) -> None:
    """Adds a label and, to the Workspace, a finalizer, as another client does."""
    found = world.existing(kind, "w")
    metadata: dict[str, Any] = {"name": "w", "labels": {FOREIGN: "kept"}}
    if kind == "workspaces":
        metadata["finalizers"] = [FOREIGN]
    world.apply(
        {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": metadata},
        manager=_AUDITOR,
    )


def _on_azure(weights: str, strength: str, *names: str) -> KubeObject:
    return workspace(
        "w",
        "on-gpu",
        resource={"instanceType": "Standard_NC24ads_A100_v4"},
        adapters=[adapter(name, strength) for name in names],
        preset_options={"image": weights},
    )


def _template(image: str) -> KubeObject:
    return workspace("w", inference={"template": {"spec": {"containers": [{"name": "mine", "image": image}]}}})


_ON_PREPARED = {"kaito.sh/node-provider": "gpu_onprem"}

#: A Workspace gets another adapter and another strength while its pods run.
LIVE_EDIT = Story(
    "live edit",
    (
        workspace("w", adapters=[adapter("style", "0.5")]),
        workspace("w", adapters=[adapter("style", "0.75"), adapter("late", "0.5")]),
    ),
)

STORIES = (
    Story(
        "new nodes",
        (
            _on_azure("registry.example/weights:1", "0.5", "style"),
            _on_azure("registry.example/weights:1", "0.75", "style", "late"),
            _on_azure("registry.example/weights:2", "0.75", "style", "late"),
        ),
    ),
    Story(
        "prepared nodes",
        (
            workspace("w", "on-gpu", resource={"preferredNodes": ["gpu-1"]}, adapters=[adapter("style", "0.5")]),
            workspace(
                "w",
                "on-gpu",
                resource={"preferredNodes": ["gpu-1", "gpu-2"], "count": 2},
                adapters=[adapter("style", "0.25")],
            ),
        ),
        nodes=("gpu-1", "gpu-2"),
    ),
    Story(
        "distributed preset",
        (
            workspace("w", "on-many", resource={"count": 2}, annotations=_ON_PREPARED),
            workspace(
                "w",
                "on-many",
                resource={"count": 2},
                annotations=_ON_PREPARED,
                preset_options={"image": "registry.example/weights:2"},
            ),
        ),
        workload="statefulsets",
        nodes=("gpu-1", "gpu-2"),
    ),
    Story("own template", (_template("registry.example/mine:1"), _template("registry.example/mine:2"))),
)
