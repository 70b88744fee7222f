"""Machines without machines: nodes that have room for all pods, and kubelets that say at once that a pod runs.

An API server alone makes no pods either: there a stand-in for the controllers makes those of Deployments, and places
them. What real controllers, schedulers and kubelets write besides is left out.
"""

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from api import STRATEGIC, Api

from kaito_core.api import KubeObject
from kaito_core.api.conditions import timestamp
from kaito_testing.world.client import KubeClient
from kaito_testing.world.pods import pod_status

__all__ = ["Controllers", "Kubelets", "add_machines"]

PODS_PER_NODE = 110  # as kubelets have it by default
ROOM = {"cpu": "1000", "memory": "4Ti", "ephemeral-storage": "4Ti", "pods": str(PODS_PER_NODE)}
PARALLEL = 8


def add_machines(cluster: KubeClient, pods: int) -> None:
    """Adds as many nodes as so many pods need, and one more."""
    for number in range(pods // PODS_PER_NODE + 2):
        name = f"cpu-{number}"
        cluster.add_node(name, gpus=0)
        room = {"status": {"capacity": ROOM, "allocatable": ROOM}}
        cluster.patch("nodes", name, room, "", content_type=STRATEGIC, subresource="status")


class Once:
    """Does something for each object once, for several at a time."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(PARALLEL)
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by uid of the object; kept, so that no task gets lost

    def __len__(self) -> int:
        return len(self._tasks)

    def do(self, obj: KubeObject, work: Coroutine[Any, Any, None]) -> None:
        """Does the work in its turn."""

        async def in_turn() -> None:
            async with self._slots:
                await work

        self._tasks[obj["metadata"]["uid"]] = asyncio.create_task(in_turn())

    def knows(self, obj: KubeObject) -> bool:
        """Returns whether it was done, or will be."""
        return obj["metadata"]["uid"] in self._tasks


class Kubelets:
    """The kubelets of all nodes. `take` is for a watch on pods."""

    def __init__(self, api: Api) -> None:
        self._api, self._once = api, Once()

    def take(self, kind: str, pod: KubeObject) -> None:
        """Starts a pod that has got its node."""
        if kind != "DELETED" and pod["spec"].get("nodeName") and not self._once.knows(pod):
            number = len(self._once) + 1
            self._once.do(pod, self._run(pod, f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"))

    async def _run(self, pod: KubeObject, address: str) -> None:
        status = pod_status(pod, timestamp(datetime.now(UTC)), None, unschedulable="", ready_node=True)
        status |= {"podIP": address, "podIPs": [{"ip": address}]}  # a Service takes no address of the loopback
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
        await self._api.send("PATCH", path, {"status": status}, STRATEGIC)


class Controllers:
    """Makes the pods of Deployments. `take` is for a watch on Deployments, `take_pod` for one on pods."""

    def __init__(self, api: Api) -> None:
        self._api, self._pods, self._ends = api, Once(), Once()

    def take(self, kind: str, deployment: KubeObject) -> None:
        """Makes the one pod of a new Deployment."""
        if kind != "DELETED" and not self._pods.knows(deployment):
            self._pods.do(deployment, self._make(deployment, f"cpu-{len(self._pods) // PODS_PER_NODE}"))

    def take_pod(self, kind: str, pod: KubeObject) -> None:
        """Says of a Deployment that its pod is ready."""
        if kind != "DELETED" and pod.get("status", {}).get("phase") == "Running" and not self._ends.knows(pod):
            self._ends.do(pod, self._end(pod))

    async def _make(self, deployment: KubeObject, node: str) -> None:
        template, owner = deployment["spec"]["template"], deployment["metadata"]
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": owner["name"], "uid": owner["uid"]}
        place = {"name": owner["name"], "namespace": owner["namespace"], "ownerReferences": [reference]}
        pod = {"metadata": {**template["metadata"], **place}, "spec": {**template["spec"], "nodeName": node}}
        await self._api.send("POST", f"/api/v1/namespaces/{owner['namespace']}/pods", pod)

    async def _end(self, pod: KubeObject) -> None:
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
        path = f"/apis/apps/v1/namespaces/{pod['metadata']['namespace']}/deployments/{pod['metadata']['name']}/status"
        await self._api.send("PATCH", path, {"status": {"observedGeneration": 1, **counts}}, STRATEGIC)
