"""The provider: reads the nodes and hands them to `fit`. Nothing is decided and nothing is written here."""

from collections.abc import Sequence

from kaito_core.api import NODES, Cluster, GpuSku, NodeRequest, NodeState, ResourceType
from kaito_gpu_onprem.fit import node_state

__all__ = ["OnPremProvider"]


class OnPremProvider:
    """Serves Workspaces from nodes that somebody prepared."""

    @property
    def name(self) -> str:
        """What a Workspace's annotation `kaito.sh/node-provider` calls it."""
        return "gpu_onprem"

    @property
    def creates_nodes(self) -> bool:
        """Never: it only finds nodes."""
        return False

    @property
    def watches(self) -> Sequence[ResourceType]:
        """Nothing of its own; nodes carry no Workspace's label, and the operator watches them anyway."""
        return ()

    def skus(self) -> Sequence[GpuSku]:
        """Returns none: it can make no machine."""
        return ()

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        """Returns which nodes fit, and for the others why they do not.

        Raises:
            ClusterError: The nodes cannot be listed.
        """
        return node_state(await cluster.list(NODES), request)

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        """Returns True: there is nothing to give back."""
        return True
