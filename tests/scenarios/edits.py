"""Edits of each field, mutable or not, the longest name, and names that are taken."""

import pytest

from kaito_core.api import KubeObject
from kaito_core.api.workspace.formats import WORKSPACE_NAME
from kaito_testing.kube.errors import ApiError
from scenarios.support.state import add_node, places, serving_config, settled, template, uids
from scenarios.support.world import World, adapter, workspace

__all__ = ["SCENARIOS"]


def every_mutable_field_can_be_edited(world: World) -> None:
    world.apply(workspace("w", adapters=[adapter("style", "0.5")]))
    generation = world.wait_state("w", "Ready")["metadata"]["generation"]
    mix = {"blends": [{"name": "mix", "strengths": {"style": "0.5"}}]}
    style = {"adapters": [adapter("style", "0.25")]}
    edits: dict[str, KubeObject] = {
        "strength": style,
        "blends": {**style, **mix},
        "adapters": {"adapters": [adapter("style", "0.25"), adapter("late")], **mix},
        "source": {"adapters": [adapter("style", "0.25", "registry.example/style:2"), adapter("late")]},
        "count": {**style, "resource": {"count": 2}},
        "presetOptions": {**style, "preset_options": {"image": "registry.example/weights:2"}},
    }
    for field, parts in edits.items():
        world.apply(workspace("w", **parts))
        document = world.wait_state("w", "Ready")
        wanted = {item["source"]["name"]: (f"{float(item['strength']):g}", "Ready") for item in parts["adapters"]}
        settled(world, "w", wanted)
        assert document["metadata"]["generation"] > generation, field
        generation = document["metadata"]["generation"]
    assert template(world, "w")["spec"]["initContainers"][0]["image"] == "registry.example/weights:2"
    world.apply(workspace("w", annotations={"kaito.sh/enablelb": "True"}))
    world.wait("it is balanced", lambda: world.existing("services", "w")["spec"]["type"] == "LoadBalancer")
    world.apply(workspace("w"))
    world.wait("it is not", lambda: world.existing("services", "w")["spec"]["type"] == "ClusterIP")
    world.wait_state("w", "Ready")
    assert serving_config(world, "w")["adapters"] == []
    assert world.existing("deployments", "w")["spec"]["replicas"] == 1


def more_nodes_carry_more_replicas(world: World) -> None:
    names = ["gpu-1", "gpu-2"]
    for name in names:
        add_node(world, name, gpus=1)
    world.apply(workspace("w", "on-gpu", resource={"preferredNodes": names, "count": 1}))
    world.wait_state("w", "Ready")
    (first,) = uids(world, "w")
    world.apply(workspace("w", "on-gpu", resource={"preferredNodes": names, "count": 2}))
    world.wait("two nodes", lambda: world.existing("workspaces", "w")["status"]["workerNodes"] == names)
    world.wait_state("w", "Ready")
    assert places(world, "w") == names and first in uids(world, "w")
    both = uids(world, "w")
    world.apply(workspace("w", "on-gpu", resource={"preferredNodes": names, "count": 1}))
    world.wait("one replica", lambda: world.existing("deployments", "w")["spec"]["replicas"] == 1)
    world.wait_state("w", "Ready")
    assert set(uids(world, "w")) <= set(both)


def every_immutable_field_is_refused(world: World) -> None:
    for name, labels in (("gpu-1", {"rack": "a"}), ("gpu-2", {"rack": "b"})):
        add_node(world, name, gpus=1, labels=labels)
    prepared = {"kaito.sh/node-provider": "gpu_onprem"}
    in_a = {"key": "rack", "operator": "In", "values": ["a"]}

    def document(machine: str = "any", rack: str = "a", **expression: object) -> KubeObject:
        selector = {"matchLabels": {"rack": rack}, "matchExpressions": [{**in_a, **expression}]}
        resource = {"instanceType": machine, "labelSelector": selector}
        return workspace("w", "on-gpu", resource=resource, annotations=prepared)

    world.apply(document())
    world.wait_state("w", "Ready")
    before = template(world, "w")
    changed = {
        "instanceType": document(machine="other"),
        "matchLabels": document(rack="b"),
        "matchExpressions": document(values=["a", "b"]),
    }
    for field, edited in changed.items():
        with pytest.raises(ApiError, match="must not change while nodes serve") as caught:
            world.apply(edited)
        assert caught.value.code == 422, field
    containers = [{"name": "mine", "image": "registry.example/mine:1"}]
    switched = {**document(), "inference": {"template": {"spec": {"containers": containers}}, "preset": None}}
    with pytest.raises(ApiError, match="must not change between preset and template"):
        world.cluster.patch("workspaces", "w", {"inference": switched["inference"]}, world.namespace)
    assert template(world, "w") == before
    world.wait_state("w", "Ready")


def the_longest_name_is_served(world: World) -> None:
    name = "w" + "x" * (WORKSPACE_NAME.longest - 1)
    world.apply(workspace(name, adapters=[adapter("style", "0.5")]))
    world.wait_state(name, "Ready")
    settled(world, name, {"style": ("0.5", "Ready")})
    with pytest.raises(ApiError):
        world.apply(workspace(name + "x"))


def a_taken_name_is_reported_with_its_owner(world: World) -> None:
    owner = world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": owner["metadata"]["uid"]}
    port = {"port": 80, "protocol": "TCP"}
    taken: tuple[tuple[KubeObject, str, str], ...] = (
        ({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [port]}}, "services", "w"),
        ({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "1"}}, "configmaps", "w-serving"),
    )
    for document, kind, name in taken:
        foreign = {**document, "metadata": {"name": name, "ownerReferences": [{**reference, "controller": True}]}}
        before = world.apply(foreign, manager="another")["metadata"]["resourceVersion"]
        world.apply(workspace("w"))
        said = world.wait_reason("w", "WorkspaceSucceeded", "NameTaken")
        assert f"{document['kind']} '{name}'" in said["message"] and "'theirs'" in said["message"]
        assert world.existing(kind, name)["metadata"]["resourceVersion"] == before
        assert world.get("deployments", "w") is None
        world.delete("workspaces", "w")
        world.delete(kind, name)
        world.wait("it is gone", lambda: world.get("workspaces", "w") is None)


SCENARIOS = (
    every_mutable_field_can_be_edited,
    more_nodes_carry_more_replicas,
    every_immutable_field_is_refused,
    the_longest_name_is_served,
    a_taken_name_is_reported_with_its_owner,
)
