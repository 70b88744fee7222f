"""A small node provider that keeps every rule, for suites to be tried on; tests break it in one place each."""

from collections.abc import Sequence
from typing import Any

from kaito_core.api import NODES, Cluster, GpuSku, KubeObject, NodeRequest, NodeState, ResourceType
from kaito_core.api.workload import WORKSPACE_LABEL, WORKSPACE_NAMESPACE_LABEL
from kaito_core.errors import CapacityError, ClusterError, ProviderError
from kaito_testing.conformance import NodeProviderConformance, World

MACHINES = ResourceType("example.com", "v1", "machines", "Machine", namespaced=False)


class SoundProvider:
    """Makes Machines, whose status the test of the cloud sets to a node, or to a refusal."""

    name = "sound"
    creates_nodes = True
    watches: Sequence[ResourceType] = (MACHINES,)

    def skus(self) -> Sequence[GpuSku]:
        return (GpuSku("gpu-1", 1, 24, "Example"),)

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        for index in range(request.count):
            name = self.machine_name(request, index)
            if await cluster.get(MACHINES, name) is None:
                await self.apply(cluster, self.machine(name, request))
        machines = await self.machines(request, cluster)
        wanted = {self.machine_name(request, index) for index in range(request.count)}
        for machine in machines:
            if machine["metadata"]["name"] not in wanted:
                await cluster.delete(MACHINES, machine["metadata"]["name"])
        return await self.state(request, [m for m in machines if m["metadata"]["name"] in wanted], cluster)

    async def state(self, request: NodeRequest, machines: Sequence[KubeObject], cluster: Cluster) -> NodeState:
        created = tuple(machine["metadata"]["name"] for machine in machines)
        statuses = [machine.get("status", {}) for machine in machines]
        for status in statuses:
            if "refusal" in status:
                raise CapacityError(status["refusal"])
        nodes = [status["nodeName"] for status in statuses if "nodeName" in status]
        ready = tuple([name for name in nodes if await cluster.get(NODES, name)])
        if len(ready) >= request.count:
            return NodeState(ready, created=created)
        return NodeState(ready, "MachinesNotReady", f"{len(ready)} of {request.count} are ready", created=created)

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        machines = await self.machines(request, cluster)
        for machine in machines:
            if "deletionTimestamp" not in machine["metadata"]:
                await cluster.delete(MACHINES, machine["metadata"]["name"])
        return not machines

    async def machines(self, request: NodeRequest, cluster: Cluster) -> Sequence[KubeObject]:
        return await cluster.list(MACHINES, labels=self.owner(request))

    async def apply(self, cluster: Cluster, manifest: KubeObject) -> None:
        try:
            await cluster.apply(manifest)
        except ClusterError as error:
            if error.status == 404:
                raise ProviderError("the cluster has no Machines: install the machine operator") from error
            raise

    def owner(self, request: NodeRequest) -> dict[str, str]:
        return {WORKSPACE_LABEL: request.workspace, WORKSPACE_NAMESPACE_LABEL: request.namespace}

    def labels(self, request: NodeRequest) -> dict[str, str]:
        return {**request.match_labels, **self.owner(request), "app.kubernetes.io/managed-by": "kaito"}

    def machine_name(self, request: NodeRequest, index: int) -> str:
        return f"m-{request.namespace[:20]}-{request.workspace[:20]}-{index}"

    def machine(self, name: str, request: NodeRequest) -> KubeObject:
        return {
            "apiVersion": MACHINES.api_version,
            "kind": MACHINES.kind,
            "metadata": {"name": name, "labels": self.labels(request)},
        }


class MachineSuite(NodeProviderConformance):
    """The suite with the cloud of Machines played."""

    instance_type = "gpu-1"
    made_by: type[Any] = SoundProvider

    def provider(self) -> Any:
        return self.made_by()

    def fulfil(self, world: World, request: NodeRequest) -> None:
        for key, machine in world.snapshot().items():
            if key[1] == MACHINES.kind and "status" not in machine:
                world.patch_status(MACHINES, key[3], {"nodeName": f"node-{key[3]}"})
                world.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{key[3]}"}})

    def refuse(self, world: World, request: NodeRequest, words: str) -> None:
        for key in world.snapshot():
            if key[1] == MACHINES.kind:
                world.patch_status(MACHINES, key[3], {"refusal": words})


def suite_of(**broken: Any) -> type[MachineSuite]:
    """Returns the suite of a provider that differs from the sound one in some members."""
    return type("Suite", (MachineSuite,), {"made_by": type("BrokenProvider", (SoundProvider,), broken)})
