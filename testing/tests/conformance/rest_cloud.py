"""A node provider of a cloud with an API of its own, whose machines are not Kubernetes objects."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from kaito_core.api import NODES, Cluster, GpuSku, NodeRequest, NodeState, ResourceType
from kaito_core.errors import CapacityError, ProviderError
from kaito_testing.conformance import NodeProviderConformance, World

__all__ = ["PlayedCloud", "RestProvider", "RestSuite", "rest_suite_of"]


class PlayedCloud:
    """The cloud's API, as its client library would offer it."""

    def __init__(self, world: "RestWorld") -> None:
        self._world = world

    def machines(self, prefix: str) -> dict[str, str]:
        """Returns the nodes of the machines whose names begin so, "" while they start."""
        return {name: str(node) for name, node in self._world.cloud.items() if name.startswith(prefix)}

    def create(self, name: str) -> None:
        if self._world.refusal:
            raise CapacityError(self._world.refusal)
        self._change("create", name)

    def delete(self, name: str) -> None:
        self._change("delete", name)

    def _change(self, call: str, name: str) -> None:
        try:
            with self._world.cloud_call(call):
                if call == "create":
                    self._world.cloud.setdefault(name, "")
                else:
                    self._world.cloud.pop(name, None)
        except ConnectionResetError as error:
            raise ProviderError(f"the cloud does not answer: {error}") from error


class RestWorld(World):
    """A world whose cloud may refuse machines."""

    refusal = ""


class RestProvider:
    """Makes machines by calls of the cloud's API; it watches nothing."""

    name = "rest"
    creates_nodes = True
    watches: Sequence[ResourceType] = ()

    def __init__(self, api: PlayedCloud | None = None) -> None:
        self.api: Any = api

    def skus(self) -> Sequence[GpuSku]:
        return (GpuSku("gpu-1", 1, 24, "Example"),)

    def prefix(self, request: NodeRequest) -> str:
        return hashlib.sha256(f"{request.namespace}/{request.workspace}".encode()).hexdigest()[:10]

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        wanted = [f"{self.prefix(request)}-{index}" for index in range(request.count)]
        there = self.api.machines(self.prefix(request))
        for name in wanted:
            if name not in there:
                self.api.create(name)
        for name in there.keys() - set(wanted):
            self.api.delete(name)
        nodes = [there.get(name, "") for name in wanted]
        ready = tuple([node for node in nodes if node and await cluster.get(NODES, node)])
        if len(ready) == request.count:
            return NodeState(ready, created=tuple(wanted))
        return NodeState(ready, "MachinesStarting", f"{len(ready)} of {request.count} are up", created=tuple(wanted))

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        for name in self.api.machines(self.prefix(request)):
            self.api.delete(name)
        return not self.api.machines(self.prefix(request))


class RestSuite(NodeProviderConformance):
    """The suite with that cloud played."""

    instance_type = "gpu-1"
    made_by: type[Any] = RestProvider

    def provider(self) -> Any:
        return self.made_by()

    def provider_in(self, world: World) -> Any:
        assert isinstance(world, RestWorld)
        return self.made_by(PlayedCloud(world))

    def world(self, absent: Iterable[ResourceType] = ()) -> World:
        return RestWorld(absent=absent)

    def fulfil(self, world: World, request: NodeRequest) -> None:
        for name in world.cloud:
            world.cloud[name] = f"node-{name}"
            world.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{name}"}})

    def refuse(self, world: World, request: NodeRequest, words: str) -> None:
        assert isinstance(world, RestWorld)
        world.cloud.clear()  # what was asked for is not made
        world.refusal = words

    def lose(self, world: World, node: str) -> None:
        super().lose(world, node)
        del world.cloud[node.removeprefix("node-")]


def rest_suite_of(**broken: Any) -> type[RestSuite]:
    """Returns the suite of a provider that differs from the sound one in some members."""
    return type("Suite", (RestSuite,), {"made_by": type("BrokenProvider", (RestProvider,), broken)})
