"""The provider reads nodes and writes nothing."""

import asyncio

from kaito_core.api import NodeProvider, NodeRequest
from kaito_gpu_onprem.plugin import kaito_node_providers
from kaito_testing.world.memory_cluster import MemoryCluster

REQUEST = NodeRequest(workspace="w", namespace="n", uid="u", count=1, gpus=1)
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "gpu-1"},
    "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": "1"}},
}


def test_registered_as_a_provider_that_creates_nothing() -> None:
    (provider,) = kaito_node_providers()
    assert isinstance(provider, NodeProvider)
    assert (provider.name, provider.creates_nodes) == ("gpu_onprem", False)
    assert (list(provider.skus()), list(provider.watches)) == ([], [])


def test_ensure_and_release_only_read() -> None:
    (provider,) = kaito_node_providers()
    cluster = MemoryCluster([NODE])
    assert asyncio.run(provider.ensure(REQUEST, cluster)).ready == ("gpu-1",)
    assert asyncio.run(provider.release(REQUEST, cluster)) is True
    assert cluster.calls == []
