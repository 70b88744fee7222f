"""Builders of requests, NodeClaims and nodes, for tests of providers that use Karpenter."""

from typing import Any

from kaito_core.api import KubeObject, NodeRequest

__all__ = ["OWNER", "TYPE", "claim", "condition", "node", "request"]

TYPE = "Standard_NC24ads_A100_v4"  #: a machine type of Azure
OWNER = {"kaito.sh/workspace": "falcon", "kaito.sh/workspacenamespace": "team"}


def request(**changes: Any) -> NodeRequest:
    """Returns a request for one machine of `TYPE`; `changes` are fields of the request."""
    given = {"workspace": "falcon", "namespace": "team", "uid": "u1", "count": 1, "instance_type": TYPE, "gpus": 1}
    return NodeRequest(**{**given, "disk_gib": 50.0, **changes})


def condition(kind: str, status: str, reason: str = "", message: str = "") -> KubeObject:
    """Returns a condition of a NodeClaim."""
    return {"type": kind, "status": status, "reason": reason, "message": message}


def claim(name: str, *conditions: KubeObject, node: str = "", instance_type: str = TYPE, **labels: str) -> KubeObject:
    """Returns a NodeClaim with the status that Karpenter writes.

    Args:
        name: Its name.
        *conditions: Its conditions, if it has no node yet.
        node: Name of its node. If given, all conditions are True.
        instance_type: Machine type that it requests.
        **labels: Labels in addition to `OWNER`.
    """
    found = [condition(kind, "True") for kind in ("Launched", "Registered", "Initialized", "Ready")]
    status: KubeObject = {"nodeName": node, "conditions": found} if node else {"conditions": list(conditions)}
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodeClaim",
        "metadata": {"name": name, "labels": {**OWNER, **labels}},
        "spec": {
            "requirements": [{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [instance_type]}]
        },
        "status": status,
    }


def node(name: str, gpus: str = "1", **labels: str) -> KubeObject:
    """Returns the node of a NodeClaim, with NVIDIA GPUs."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {"nvidia.com/gpu": gpus}},
    }
