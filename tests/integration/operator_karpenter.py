"""Karpenter by hand: NodeClaims, and the nodes that become of them. No scenario lives here."""

import uuid
from datetime import UTC, datetime

from kaito_core.api import KubeObject
from kaito_core.testing.cluster import FakeCluster

__all__ = ["RESOURCE", "become_nodes", "claims", "nodeclaim_crd", "refuse"]

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


def claims(cluster: FakeCluster) -> list[KubeObject]:
    """Returns all NodeClaims."""
    return cluster.list("nodeclaims.karpenter.sh")


def become_nodes(cluster: FakeCluster) -> None:
    """Does what Karpenter does: every claim becomes a node, once."""
    for claim in claims(cluster):
        name = claim["metadata"]["name"]
        if (claim.get("status") or {}).get("nodeName"):
            continue
        cluster.add_node(f"node-{name}", gpus=1)
        ready = [{"type": "Ready", "status": "True", "reason": "Ready", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        status = {"status": {"nodeName": f"node-{name}", "conditions": ready}}
        cluster.patch("nodeclaims.karpenter.sh", name, status, "", subresource="status")


def refuse(cluster: FakeCluster, name: str, words: str) -> None:
    """Does what Karpenter does with a claim that the cloud refuses: says why in an event, and deletes it."""
    now = datetime.now(UTC).isoformat()
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.{uuid.uuid4().hex[:8]}", "namespace": "default"},
            "involvedObject": {"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": name},
            "reason": "InsufficientCapacityError",
            "message": words,
            "lastTimestamp": now,
        }
    )
    cluster.delete("nodeclaims.karpenter.sh", name, "")
