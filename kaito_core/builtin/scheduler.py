"""The node provider that leaves nodes to Kubernetes: the scheduler chooses, and the cluster's autoscaler makes them.

It is for pools that may have no node now (cluster-autoscaler, GKE's node pools, Karpenter's NodePools): such nodes come
for pods that wait, so that pods are made first.
"""

from collections.abc import Sequence

from kaito_core.api import Cluster, GpuSku, NodeRequest, NodeState, ResourceType
from kaito_core.api.labels import requirement_text

__all__ = ["SCHEDULER", "SchedulerProvider"]

SCHEDULER = "scheduler"  #: its name, in the annotation kaito.sh/node-provider and in KAITO_NODE_PROVIDER


class SchedulerProvider:
    """Asks for no node, and has pods made before there is one.

    Attributes:
        by_default: Whether it serves Workspaces that name no provider, in place of one that checks prepared nodes.
    """

    def __init__(self, *, by_default: bool = False) -> None:
        self.by_default = by_default

    @property
    def name(self) -> str:
        """The name in a Workspace's annotation `kaito.sh/node-provider`."""
        return SCHEDULER

    @property
    def creates_nodes(self) -> bool:
        """False: if anything does, the cluster's autoscaler does."""
        return False

    @property
    def watches(self) -> Sequence[ResourceType]:
        """None."""
        return ()

    def skus(self) -> Sequence[GpuSku]:
        """Returns no machine types: it creates no machines."""
        return ()

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        """Returns what the pods wait for until they have nodes; nothing is checked and nothing is asked for."""
        return NodeState((), "WaitingForNodes", f"waiting for {_pool(request)}", pods_first=True)

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        """Returns True: there is nothing to release."""
        return True


def _pool(request: NodeRequest) -> str:
    """Returns the nodes that pods wait for, in words."""
    labels = [f"{key}={value}" for key, value in sorted(request.match_labels.items())]
    labels += map(requirement_text, request.match_expressions)
    kind = f"a {request.instance_type} node" if request.instance_type else "a node"
    wanted = [*([f"the labels {', '.join(labels)}"] if labels else []), *(["a free GPU"] if request.gpus else [])]
    return f"{kind} with {' and '.join(wanted)}" if wanted else kind
