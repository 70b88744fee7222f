"""The provider against objects in memory: creating, waiting, replacing, giving back."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from kaito_core.api import NodeProvider, NodeState
from kaito_core.errors import ConfigError, ProviderError
from kaito_core.settings import Settings
from kaito_gpu_azure.plugin import kaito_node_providers
from kaito_gpu_azure.provider import AzureProvider
from kaito_karpenter import NODECLAIMS
from kaito_karpenter.testing import OWNER, claim, node, request
from kaito_testing.world.memory_cluster import MemoryCluster

PROVIDER = AzureProvider()


def ensure(cluster: MemoryCluster, **changes: Any) -> NodeState:
    return asyncio.run(PROVIDER.ensure(request(**changes), cluster))


def release(cluster: MemoryCluster) -> bool:
    return asyncio.run(PROVIDER.release(request(), cluster))


def claims(cluster: MemoryCluster) -> list[str]:
    return [found["metadata"]["name"] for found in asyncio.run(cluster.list(NODECLAIMS))]


def launch(cluster: MemoryCluster, name: str) -> None:
    """Does what Karpenter, Azure and the device plugin do."""
    cluster.patch_status(NODECLAIMS, name, claim(name, node=f"node-{name}")["status"])
    asyncio.run(cluster.apply(node(f"node-{name}")))
    cluster.calls.clear()


def test_creates_then_waits_then_is_ready() -> None:
    cluster = MemoryCluster()
    first = ensure(cluster, count=2)
    assert (len(first.created), first.reason) == (2, "NodeClaimNotReady")
    assert sorted(first.created) == sorted(claims(cluster))
    again = ensure(cluster, count=2)
    assert (len(cluster.calls), set(again.created)) == (2, set(first.created))  # nothing is created twice
    for name in first.created:
        launch(cluster, name)
    state = ensure(cluster, count=2)
    assert (len(state.ready), state.reason, cluster.calls) == (2, "", [])


def test_another_machine_type_is_made_before_the_one_with_pods_goes() -> None:
    unused = claim("unused", instance_type="Standard_NC12s_v3")
    cluster = MemoryCluster([claim("old", node="n1", instance_type="Standard_NC12s_v3"), node("n1"), unused])
    (made,) = ensure(cluster, held_nodes=("n1",)).created
    assert claims(cluster) == ["old", made]
    launch(cluster, made)
    assert ensure(cluster).ready == (f"node-{made}",)
    assert claims(cluster) == [made]


def test_fewer_nodes_give_the_others_back() -> None:
    cluster = MemoryCluster([claim("a", node="n1"), node("n1"), claim("b", node="n2"), node("n2")])
    assert ensure(cluster).ready == ("n1",)
    assert claims(cluster) == ["a"]


def test_claims_of_other_workspaces_are_left_alone() -> None:
    other = claim("other", node="n9")
    other["metadata"]["labels"] = {**OWNER, "kaito.sh/workspace": "another"}
    cluster = MemoryCluster([other])
    ensure(cluster)
    assert release(cluster) is False
    assert claims(cluster) == ["other"]


def test_a_refused_machine_is_not_asked_for_again_at_once() -> None:
    cluster = MemoryCluster()
    (name,) = ensure(cluster).created
    asyncio.run(cluster.delete(NODECLAIMS, name))  # Karpenter's answer to a lack of capacity ...
    event = {  # ... and its reason
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "NodeClaim", "name": name},
        "reason": "InsufficientCapacityError",
        "message": "exceeding approved standardNCADSA100v4Family Cores quota",
        "lastTimestamp": datetime.now(UTC).isoformat(),
    }
    asyncio.run(cluster.apply(event))
    state = ensure(cluster)
    assert (state.reason, state.failed, claims(cluster)) == ("InsufficientCapacity", True, [])
    assert "standardNCADSA100v4Family" in state.message


def test_a_cluster_without_nodeclaims() -> None:
    cluster = MemoryCluster(absent=[NODECLAIMS])
    with pytest.raises(ProviderError, match="install Karpenter for Azure"):
        ensure(cluster)
    assert release(cluster) is True


def test_release_is_done_when_nothing_is_left() -> None:
    held = claim("a", node="n1")
    held["metadata"]["finalizers"] = ["karpenter.sh/termination"]
    cluster = MemoryCluster([held])
    assert release(cluster) is False
    assert release(cluster) is False
    assert cluster.calls == [("delete", "NodeClaim", "a")]  # asked once
    cluster.finish_deletions()
    assert release(cluster) is True


class TestPlugin:
    def test_registered(self) -> None:
        (provider,) = kaito_node_providers(Settings())
        assert isinstance(provider, NodeProvider)
        assert (provider.name, provider.creates_nodes) == ("gpu_azure", True)
        assert list(provider.watches) == [NODECLAIMS]

    def test_options_choose_the_node_class(self) -> None:
        (provider,) = kaito_node_providers(Settings(plugins={"gpu_azure": {"node_class": "gpu"}}))
        cluster = MemoryCluster()
        asyncio.run(provider.ensure(request(), cluster))
        (made,) = asyncio.run(cluster.list(NODECLAIMS))
        assert made["spec"]["nodeClassRef"]["name"] == "gpu"

    def test_unknown_options_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"gpu_azure: unknown option 'nodeclass'; did you mean node_class\?"):
            kaito_node_providers(Settings(plugins={"gpu_azure": {"nodeclass": "gpu"}}))
