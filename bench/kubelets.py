"""Simulated nodes and kubelets: nodes with room for all pods, and kubelets that report every pod as running at once.

For an API server without controllers, a stand-in creates the pods of Deployments and assigns them to nodes. Other
writes of real controllers, schedulers and kubelets are left out.
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
    """Adds the nodes for a number of pods, and one more."""
    for number in range(pods // PODS_PER_NODE + 2):
        name = f"cpu-{number}"
        cluster.add_node(name, gpus=0)
        room = {"status": {"capacity": ROOM, "allocatable": ROOM}}
        cluster.patch("nodes", name, room, "", content_type=STRATEGIC, subresource="status")


class Once:
    """Does work once for each object, for several objects at a time."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(PARALLEL)
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by uid of the object; asyncio keeps no reference

    def __len__(self) -> int:
        return len(self._tasks)

    def do(self, obj: KubeObject, work: Coroutine[Any, Any, None]) -> None:
        """Starts the work for an object as soon as there is a slot."""

        async def in_turn() -> None:
            async with self._slots:
                await work

        self._tasks[obj["metadata"]["uid"]] = asyncio.create_task(in_turn())

    def knows(self, obj: KubeObject) -> bool:
        """Returns whether the work for an object was started."""
        return obj["metadata"]["uid"] in self._tasks


class Kubelets:
    """The kubelets of all nodes. `take` receives the events of a watch on pods."""

    def __init__(self, api: Api) -> None:
        self._api, self._once = api, Once()

    def take(self, kind: str, pod: KubeObject) -> None:
        """Starts a pod that is assigned to a node."""
        if kind != "DELETED" and pod["spec"].get("nodeName") and not self._once.knows(pod):
            number = len(self._once) + 1
            self._once.do(pod, self._run(pod, f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"))

    async def _run(self, pod: KubeObject, address: str) -> None:
        status = pod_status(pod, timestamp(datetime.now(UTC)), None, unschedulable="", ready_node=True)
        status |= {"podIP": address, "podIPs": [{"ip": address}]}  # Services refuse loopback addresses
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
        await self._api.send("PATCH", path, {"status": status}, STRATEGIC)


class Controllers:
    """Creates the pods of Deployments. `take` receives events of Deployments, `take_pod` those of pods."""

    def __init__(self, api: Api) -> None:
        self._api, self._pods, self._ends = api, Once(), Once()

    def take(self, kind: str, deployment: KubeObject) -> None:
        """Creates the pod of a new Deployment."""
        if kind != "DELETED" and not self._pods.knows(deployment):
            self._pods.do(deployment, self._make(deployment, f"cpu-{len(self._pods) // PODS_PER_NODE}"))

    def take_pod(self, kind: str, pod: KubeObject) -> None:
        """Reports a Deployment as ready when its pod runs."""
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
