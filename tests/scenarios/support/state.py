"""What scenarios read of a World: templates, nodes, adapters, and all of a Workspace to compare two runs."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.api.conditions import timestamp
from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.reconcile.objects.compare import HASH_ANNOTATION
from kaito_testing.world.client import KubeClient
from scenarios.support.world import World, conditions

__all__ = [
    "add_job",
    "add_node",
    "belongings",
    "end_state",
    "is_established",
    "is_true",
    "left",
    "pinned",
    "places",
    "serving_config",
    "settled",
    "template",
    "uids",
    "warn",
]


#: What a Workspace is made of.
_KINDS = ("configmaps", "services", "poddisruptionbudgets", "deployments", "statefulsets")
#: Set by the server, or depending on the Workspace's uid, as the hash of a manifest does.
_VOLATILE = (
    *("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation", "lastTransitionTime"),
    *("clusterIP", "clusterIPs", HASH_ANNOTATION),
)


def serving_config(world: World, name: str) -> KubeObject:
    """Returns the configuration that the pods of a Workspace serve."""
    config: KubeObject = json.loads(world.existing("configmaps", f"{name}-serving")["data"]["serving.json"])
    return config


def template(world: World, name: str, kind: str = "deployments") -> KubeObject:
    """Returns the pod template of a Workspace."""
    found: KubeObject = world.existing(kind, name)["spec"]["template"]
    return found


def uids(world: World, name: str) -> list[str]:
    """Returns the uids of a Workspace's pods."""
    return sorted(pod["metadata"]["uid"] for pod in world.pods(name))


def settled(world: World, name: str, adapters: dict[str, tuple[str, str]]) -> KubeObject:
    """Waits until the adapters in the status are exactly these, name -> (strength, state), and returns the status."""

    def said() -> KubeObject | None:
        document = world.get("workspaces", name) or {}
        status = document.get("status") or {}
        rows = {row["name"]: (row["strength"], row["state"]) for row in status.get("adapters", [])}
        current = status.get("observedGeneration") == document["metadata"]["generation"]
        return status if rows == adapters and current else None

    found: KubeObject = world.wait(f"{name} serves {adapters}", said)
    return found


def add_node(world: World, name: str, **parts: Any) -> None:
    """Adds or changes a node of the scenario; parts as for `KubeClient.add_node`."""
    world.added_nodes.add(name)
    world.cluster.add_node(name, **parts)


def add_job(world: World, node: str) -> None:
    """Adds a pod of somebody else's with a GPU of a node."""
    one = {"nvidia.com/gpu": "1"}
    container = {"name": "c", "image": "registry.example/job:1", "resources": {"limits": one, "requests": one}}
    spec = {"nodeName": node, "containers": [container]}
    metadata = {"name": "batch-job", "namespace": world.namespace}
    world.cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def pinned(world: World, name: str) -> list[str]:
    """Returns the nodes that the pod template of a Workspace names."""
    affinity = template(world, name)["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
    return list(
        dict.fromkeys(name for term in terms for field in term.get("matchFields", []) for name in field["values"])
    )


def places(world: World, name: str) -> list[str]:
    """Returns the nodes that the pods of a Workspace are on, each once for every pod."""
    return sorted(pod["spec"].get("nodeName", "") for pod in world.pods(name))


def is_true(world: World, name: str, condition: str) -> bool:
    """Returns whether a condition of a Workspace is true."""
    return bool(conditions(world.get("workspaces", name)).get(condition, {}).get("status") == "True")


def is_established(cluster: KubeClient, name: str) -> bool:
    """Returns whether a CRD is established."""
    crd = cluster.get("customresourcedefinitions", name, "") or {}
    found = (crd.get("status") or {}).get("conditions") or ()
    return any((item["type"], item["status"]) == ("Established", "True") for item in found)


def warn(cluster: KubeClient, about: KubeObject, reason: str, words: str, namespace: str = "default") -> None:
    """Makes a warning event about an object, as controllers and kubelets do."""
    name = f"{about['name']}.{uuid.uuid4().hex[:8]}"
    metadata, now = {"name": name, "namespace": namespace}, timestamp(datetime.now(UTC))
    event = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": about, "type": "Warning"}
    cluster.create({**event, "reason": reason, "message": words, "lastTimestamp": now})


def _essence(value: Any) -> Any:
    """Returns an object without what differs between two runs."""
    if isinstance(value, dict):
        return {key: _essence(item) for key, item in value.items() if key not in _VOLATILE}
    if isinstance(value, list):
        return [_essence(item) for item in value]
    return value


def belongings(world: World, kind: str) -> list[KubeObject]:
    """Returns the objects of a kind with the label of Workspace w."""
    found: list[KubeObject] = world.cluster.list(kind, world.namespace, f"{WORKSPACE_LABEL}=w")
    return found


def end_state(world: World) -> dict[str, Any]:
    """Returns Workspace w and all objects with its label, without what differs between two runs.

    Two states are equal only if neither run has duplicates or leftovers.
    """
    workspace = world.existing("workspaces", "w")
    workspace["metadata"]["finalizers"] = sorted(workspace["metadata"].get("finalizers", []))  # a set
    state = {"workspaces/w": _essence(workspace), "pods": len(world.pods("w"))}
    for kind in _KINDS:
        for found in belongings(world, kind):
            state[f"{kind}/{found['metadata']['name']}"] = _essence({**found, "status": None})
    return state


def left(world: World) -> list[str]:
    """Returns the names of what is left of Workspace w, itself included."""
    kinds = (*_KINDS, "pods")
    names = [f"{kind}/{item['metadata']['name']}" for kind in kinds for item in belongings(world, kind)]
    return names + (["workspaces/w"] if world.get("workspaces", "w") is not None else [])
