"""Karpenter by hand: NodeClaims, and the nodes that become of them. No scenario lives here."""

from kaito_core.api import KubeObject
from kaito_testing.world.client import KubeClient
from scenarios.support.state import add_node, is_established, warn
from scenarios.support.world import World

__all__ = ["RESOURCE", "become_nodes", "claims", "first_claim", "install_nodeclaims", "nodeclaim_crd", "refuse"]

#: What a Workspace says to get a machine made.
RESOURCE = {"instanceType": "Standard_NC24ads_A100_v4"}


def nodeclaim_crd() -> KubeObject:
    """Returns a CRD of NodeClaims that lets everything through."""
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
    """Makes NodeClaims a known type, and waits until it is served."""
    cluster.apply(nodeclaim_crd())
    cluster.wait("NodeClaims", lambda: is_established(cluster, "nodeclaims.karpenter.sh"))


def first_claim(world: World) -> KubeObject:
    """Returns the first NodeClaim once it is there and watched."""
    (claim,) = world.wait("a claim", lambda: claims(world.cluster))
    # A real server is busy for a second with a new type, and what comes and goes meanwhile only a resync tells.
    world.wait("a watch", lambda: any("watch" in r.query for r in world.cluster.requests(path="/nodeclaims$")))
    found: KubeObject = claim
    return found


def claims(cluster: KubeClient) -> list[KubeObject]:
    """Returns all NodeClaims."""
    return cluster.list("nodeclaims.karpenter.sh")


def become_nodes(world: World) -> None:
    """Does what Karpenter does: every claim becomes a node, once."""
    for claim in claims(world.cluster):
        name = claim["metadata"]["name"]
        if (claim.get("status") or {}).get("nodeName"):
            continue
        add_node(world, f"node-{name}", gpus=1)
        ready = [{"type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        status = {"status": {"nodeName": f"node-{name}", "conditions": ready}}
        world.cluster.patch("nodeclaims.karpenter.sh", name, status, "", subresource="status")


def refuse(cluster: KubeClient, name: str, words: str) -> None:
    """Does what Karpenter does with a claim that the cloud refuses: says why in an event, and deletes it."""
    about = {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": name}
    warn(cluster, about, "InsufficientCapacityError", words)
    cluster.delete("nodeclaims.karpenter.sh", name, "")
