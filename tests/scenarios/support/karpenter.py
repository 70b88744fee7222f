"""What Karpenter does, by hand: NodeClaims, and the nodes that are made for them."""

from collections.abc import Mapping

from kaito_core.api import KubeObject
from kaito_testing.world.client import KubeClient
from scenarios.support.state import add_node, is_established, warn
from scenarios.support.world import World

__all__ = ["RESOURCE", "become_nodes", "claims", "first_claim", "install_nodeclaims", "nodeclaim_crd", "refuse"]

#: Resource of a Workspace that a machine is made for.
RESOURCE = {"instanceType": "Standard_NC24ads_A100_v4"}


def nodeclaim_crd() -> KubeObject:
    """Returns a CRD of NodeClaims that accepts all objects."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "nodeclaims.karpenter.sh"},
        "spec": {
            "group": "karpenter.sh",
            "scope": "Cluster",
            "names": {
                "kind": "NodeClaim",
                "listKind": "NodeClaimList",
                "plural": "nodeclaims",
                "singular": "nodeclaim",
            },
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": anything},
                }
            ],
        },
    }


def install_nodeclaims(cluster: KubeClient) -> None:
    """Installs the CRD of NodeClaims, and waits until it is established."""
    cluster.apply(nodeclaim_crd())
    cluster.wait("NodeClaims", lambda: is_established(cluster, "nodeclaims.karpenter.sh"))


def first_claim(world: World) -> KubeObject:
    """Waits for the first NodeClaim and for the operator's watch, and returns the claim."""
    (claim,) = world.wait("a claim", lambda: claims(world.cluster))
    # A real server needs a second for a new type; what changes meanwhile, only a resync would show.
    world.wait("a watch", lambda: any("watch" in r.query for r in world.cluster.requests(path="/nodeclaims$")))
    found: KubeObject = claim
    return found


def claims(cluster: KubeClient) -> list[KubeObject]:
    """Returns all NodeClaims."""
    return cluster.list("nodeclaims.karpenter.sh")


def become_nodes(world: World, labels: Mapping[str, str] | None = None) -> None:
    """Makes a node for each claim that has none, with its labels and these, and removes nodes whose claim is gone."""
    there = claims(world.cluster)
    for node in world.added_nodes - {f"node-{claim['metadata']['name']}" for claim in there}:
        if node.startswith("node-ws"):
            world.cluster.delete("nodes", node, "")
            world.added_nodes.discard(node)
    for claim in there:
        name = claim["metadata"]["name"]
        if (claim.get("status") or {}).get("nodeName"):
            continue
        add_node(world, f"node-{name}", gpus=1, labels={**claim["metadata"]["labels"], **(labels or {})})
        ready = [{"type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        status = {"status": {"nodeName": f"node-{name}", "conditions": ready}}
        world.cluster.patch("nodeclaims.karpenter.sh", name, status, "", subresource="status")


def refuse(cluster: KubeClient, name: str, words: str) -> None:
    """Refuses a claim as Karpenter does if the cloud has no machine: an event says why, and the claim is deleted."""
    about = {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": name}
    warn(cluster, about, "InsufficientCapacityError", words)
    cluster.delete("nodeclaims.karpenter.sh", name, "")
