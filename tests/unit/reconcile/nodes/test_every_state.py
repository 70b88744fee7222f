"""Nodes in every state, under one pod and under a distributed preset, prepared, made by Karpenter and autoscaled.

Whatever happens to nodes ends no pod that runs, makes no pod name a node, and makes nothing start that cannot.
"""

import asyncio
import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from kaito_core.api import NODES, KubeObject, NodeProvider, NodeState, parse_workspace
from kaito_core.builtin.scheduler import SchedulerProvider
from kaito_core.reconcile.actions import Apply, Delete
from kaito_core.reconcile.nodes.request import node_request
from kaito_core.reconcile.nodes.taken_gpus import taken_gpus
from kaito_core.reconcile.resolve import resolve
from kaito_gpu_azure.provider import AzureProvider
from kaito_gpu_onprem.provider import OnPremProvider
from kaito_karpenter.claims import NODECLAIMS
from kaito_testing.world.memory_cluster import MemoryCluster

Make = Callable[..., Any]
Change = Callable[[KubeObject], None]

POOL = {"matchLabels": {"pool": "a"}}
TYPE = "Standard_NC24ads_A100_v4"


def ready(status: str) -> KubeObject:
    return {"type": "Ready", "status": status, "reason": "Kubelet", "message": "no heartbeat"}


def node(name: str) -> KubeObject:
    labels = {"pool": "a", "node.kubernetes.io/instance-type": TYPE, "nvidia.com/gpu.memory": "81920"}
    allocatable = {"nvidia.com/gpu": "1", "memory": "200Gi", "ephemeral-storage": "500Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": {"allocatable": allocatable, "conditions": [ready("True")]},
    }


def spec(**fields: Any) -> Change:
    return lambda node: node["spec"].update(fields)


def taint(effect: str) -> Change:
    return spec(taints=[{"key": "maintenance", "value": "soon", "effect": effect}])


def allocatable(**amounts: str | None) -> Change:
    def change(node: KubeObject) -> None:
        found = node["status"]["allocatable"]
        for name, amount in amounts.items():
            found.pop("nvidia.com/gpu" if name == "gpu" else name, None)
            if amount is not None:
                found["nvidia.com/gpu" if name == "gpu" else name] = amount

    return change


def resources(amounts: KubeObject) -> Change:
    return lambda node: node["status"].update(allocatable=amounts)


def labels(given: KubeObject) -> Change:
    return lambda node: node["metadata"].update(labels={**node["metadata"]["labels"], **given})


#: What happens to every node.
STATES: dict[str, Change] = {
    "nothing": lambda node: None,
    "cordoned": spec(unschedulable=True),
    "tainted NoSchedule": taint("NoSchedule"),
    "tainted NoExecute": taint("NoExecute"),
    "not ready": lambda node: node["status"].update(conditions=[ready("False")]),
    "unreachable": lambda node: node["status"].update(conditions=[ready("Unknown")]),
    "without conditions": lambda node: node["status"].update(conditions=None),
    "being deleted": lambda node: node["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"),
    "device plugin restarts": allocatable(gpu="0"),
    "no device plugin": allocatable(gpu=None),
    "negative GPUs": allocatable(gpu="-1"),
    "half a GPU": allocatable(gpu="500m"),
    "GPUs in words": allocatable(gpu="many"),
    "GPUs without end": allocatable(gpu="9" * 400),
    "another vendor": resources({"amd.com/gpu": "1", "memory": "200Gi", "ephemeral-storage": "500Gi"}),
    "MIG slices": resources({"nvidia.com/mig-1g.10gb": "7", "memory": "200Gi"}),
    "MIG slices without a size": resources({"nvidia.com/mig-": "7", "nvidia.com/mig-x.y": "1", "memory": "200Gi"}),
    "negative memory": allocatable(memory="-5Gi"),
    "little memory": allocatable(memory="1Gi"),
    "memory in words": allocatable(memory="lots"),
    "no disk": allocatable(**{"ephemeral-storage": "0"}),
    "nothing allocatable": resources({}),
    "GPU memory in words": labels({"nvidia.com/gpu.memory": "lots"}),
    "negative GPU memory": labels({"nvidia.com/gpu.memory": "-1"}),
    "GPU memory without end": labels({"nvidia.com/gpu.memory": "9" * 60}),
    "GPU memory in other digits": labels({"nvidia.com/gpu.memory": "٨١٩٢٠"}),
    "small GPUs": labels({"nvidia.com/gpu.memory": "4096"}),
    "another machine type": labels({"node.kubernetes.io/instance-type": "Standard_NV6"}),
    "another pool": labels({"pool": "b"}),
    "without labels": lambda node: node["metadata"].update(labels={}),
    "shared GPUs": labels({"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.product": "A100-SHARED"}),
    "replicas in words": labels({"nvidia.com/gpu.replicas": "some"}),
}


class Cluster:
    """A provider and the nodes of a Workspace, of which one each is made for a pod."""

    def __init__(self, kind: str, count: int) -> None:
        self.objects, self.count = MemoryCluster(), count
        providers: dict[str, NodeProvider] = {
            "prepared": OnPremProvider(),
            "Karpenter": AzureProvider(),
            "autoscaled": SchedulerProvider(),
        }
        self.kind, self.provider = kind, providers[kind]
        self.names = [f"node-{letter}" for letter in "abc"[:count]]
        self.nodes = {name: node(name) for name in self.names} if kind != "Karpenter" else {}

    def state(self, world: Any) -> NodeState:
        """What the provider says, as a pass asks it."""
        workspace = parse_workspace(world.document)
        request = node_request(workspace, resolve(workspace, world.registry).preset)
        held = tuple(pod["spec"].get("nodeName", "") for pod in world.pods.values())
        pods = [{**pod, "metadata": {**pod["metadata"], "namespace": "models"}} for pod in world.pods.values()]
        request = dataclasses.replace(request, held_nodes=held, taken=taken_gpus("models/demo", pods))
        self._store()
        found = asyncio.run(self.provider.ensure(request, self.objects))
        if self.kind != "Karpenter" or self.nodes:
            return found
        for claim, name in zip(asyncio.run(self.objects.list(NODECLAIMS)), self.names, strict=True):
            made = {"nodeName": name, "conditions": [{"type": "Ready", "status": "True"}]}
            self.objects.patch_status(NODECLAIMS, claim["metadata"]["name"], made)
            self.nodes[name] = node(name)
        self._store()
        return asyncio.run(self.provider.ensure(request, self.objects))

    def _store(self) -> None:
        for found in self.nodes.values():
            asyncio.run(self.objects.apply(copy.deepcopy(found)))
            self.objects.patch_status(NODES, found["metadata"]["name"], found["status"])


def made(world: Make, kind: str, preset: str) -> tuple[Any, Cluster]:
    count = 2 if preset == "spread" else 1
    resource: dict[str, Any] = {"count": count}
    resource |= {"instanceType": TYPE} if kind == "Karpenter" else {"labelSelector": POOL}
    w = world({"preset": {"name": preset}}, **resource)
    cluster = Cluster(kind, count)
    w.nodes = cluster.state(w)
    return w, cluster


def place(w: Any, cluster: Cluster) -> None:
    """Puts pods that have no node on one each, as a scheduler does."""
    for pod, name in zip(w.pods.values(), cluster.names, strict=True):
        pod["spec"]["nodeName"] = name


CASES = [(kind, preset) for kind in ("prepared", "Karpenter", "autoscaled") for preset in ("one-gpu", "spread")]


@pytest.mark.parametrize("happens", STATES)
@pytest.mark.parametrize(("kind", "preset"), CASES)
def test_no_pod_that_runs_is_ended(world: Make, kind: str, preset: str, happens: str) -> None:
    w, cluster = made(world, kind, preset)
    w.settle()
    place(w, cluster)
    before, uids = copy.deepcopy(w.children), [pod["metadata"]["uid"] for pod in w.pods.values()]
    for found in cluster.nodes.values():
        STATES[happens](found)
    w.nodes = cluster.state(w)
    planned = w.step()
    assert planned.actions == ()
    for name in list(cluster.nodes):
        cluster.nodes[name] = node(name)
    w.nodes = cluster.state(w)
    w.step()
    assert w.children == before and [pod["metadata"]["uid"] for pod in w.pods.values()] == uids
    assert planned.status["workerNodes"] == cluster.names
    assert w.document["status"]["state"] == "Ready"


@pytest.mark.parametrize("happens", STATES)
@pytest.mark.parametrize(("kind", "preset"), CASES)
def test_no_pod_is_made_for_nodes_that_it_cannot_have(world: Make, kind: str, preset: str, happens: str) -> None:
    w, cluster = made(world, kind, preset)
    for found in cluster.nodes.values():
        STATES[happens](found)
    w.nodes = cluster.state(w)
    planned = w.plan()
    assert not [action for action in planned.actions if isinstance(action, Delete)]
    manifests = [action.manifest for action in planned.actions if isinstance(action, Apply)]
    assert "node-" not in json.dumps(manifests).replace("node-provider", ""), (
        "no node is named that the user did not name"
    )
    starts = [manifest for manifest in manifests if manifest["kind"] in ("Deployment", "StatefulSet")]
    assert bool(starts) == (w.nodes.pods_first or not w.nodes.reason)
    if happens in _UNFIT[kind]:
        assert w.nodes.reason
        assert w.nodes.pods_first or not starts
        assert w.condition("ResourceReady", planned)[0] != "True"


_NO_GPU = {
    *("device plugin restarts", "no device plugin", "negative GPUs", "half a GPU", "GPUs in words"),
    *("GPUs without end", "nothing allocatable", "MIG slices without a size"),
}
#: The states in which no new pod can have the node. Karpenter vouches for machines that it has made.
_UNFIT: dict[str, set[str]] = {
    "prepared": _NO_GPU
    | {
        *("cordoned", "tainted NoSchedule", "tainted NoExecute", "not ready", "unreachable", "without conditions"),
        *("being deleted", "little memory", "negative memory", "no disk", "small GPUs"),
        *("another pool", "without labels"),
    },
    "Karpenter": _NO_GPU,
    "autoscaled": set(STATES),
}
