"""The provider, which lists the nodes and lets `fit` decide. It writes nothing."""

from collections.abc import Sequence

from kaito_core.api import NODES, Cluster, GpuSku, NodeRequest, NodeState, ResourceType
from kaito_gpu_onprem.fit import node_state

__all__ = ["OnPremProvider"]


class OnPremProvider:
    """Finds nodes that exist already."""

    @property
    def name(self) -> str:
        """The name in a Workspace's annotation `kaito.sh/node-provider`."""
        return "gpu_onprem"

    @property
    def creates_nodes(self) -> bool:
        """False: it only finds nodes."""
        return False

    @property
    def watches(self) -> Sequence[ResourceType]:
        """None: the operator itself watches nodes."""
        return ()

    def skus(self) -> Sequence[GpuSku]:
        """Returns no machine types: it creates no machines."""
        return ()

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        """Returns the nodes that fit, and for each other node the reason why it does not.

        Raises:
            ClusterError: The nodes cannot be listed.
        """
        return node_state(await cluster.list(NODES), request)

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        """Returns True: there is nothing to release."""
        return True
