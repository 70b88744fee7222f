"""GPU nodes: the machines a Workspace asks for, what a provider says about them, and the provider's Protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from kaito_core.api.cluster import Cluster, ResourceType

__all__ = [
    "GPU_MEMORY_LABEL",
    "GPU_RESOURCES",
    "INSTANCE_TYPE_LABEL",
    "NVIDIA_GPU",
    "Closes",
    "GpuSku",
    "MakesTypes",
    "NodeProvider",
    "NodeRequest",
    "NodeState",
    "RejectedNode",
    "Starts",
]

NVIDIA_GPU = "nvidia.com/gpu"
#: Resource names of GPUs in a node's status.allocatable; GPU nodes often have a taint of the same name.
GPU_RESOURCES = (NVIDIA_GPU, "amd.com/gpu")
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
GPU_MEMORY_LABEL = "nvidia.com/gpu.memory"  #: MiB of one GPU, from GPU feature discovery


@dataclass(frozen=True, slots=True)
class GpuSku:
    """A machine type.

    Attributes:
        name: The cloud's name of the machine type; compared without regard to case.
        gpus: GPUs per machine.
        gpu_memory_gib: GPU memory of the whole machine, in GiB.
        gpu_model: GPU model, such as "NVIDIA A100".
        gpu_resource: Resource name of its GPUs, which pods ask for.
    """

    name: str
    gpus: int
    gpu_memory_gib: float
    gpu_model: str
    gpu_resource: str = NVIDIA_GPU

    @property
    def memory_per_gpu_gib(self) -> float:
        """Memory of one GPU, in GiB."""
        return self.gpu_memory_gib / self.gpus if self.gpus else 0.0


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """The nodes that a Workspace needs.

    Attributes:
        workspace: Name of the Workspace.
        namespace: Its namespace.
        uid: Its uid, for owner labels.
        count: Number of nodes.
        instance_type: Machine type, "" for any.
        match_labels: Labels that every node must have.
        match_expressions: Further requirements of labels, as Kubernetes writes them.
        preferred_nodes: Names of nodes to use first; without requirements of labels no others are used.
        gpus: GPUs needed on each node; 0 asks for none.
        gpu_memory_gib: GPU memory needed on each node, in GiB.
        memory_gib: Main memory needed on each node, in GiB.
        disk_gib: Disk needed on each node, in GiB.
        tolerations: Tolerations of the pods, as Kubernetes writes them, with those of the GPU taints of every vendor.
        held_nodes: Names of the nodes that the Workspace's pods are on.
        taken: GPUs that other pods have on a node, by node name and holder, such as "Workspace 'team/w'".
        annotations: The Workspace's, of which a provider may read some of its own.
        notes: Those of the last `NodeState`, also after a restart of the operator.
    """

    workspace: str
    namespace: str
    uid: str
    count: int
    instance_type: str = ""
    match_labels: Mapping[str, str] = field(default_factory=dict)
    match_expressions: tuple[Mapping[str, Any], ...] = ()
    preferred_nodes: tuple[str, ...] = ()
    gpus: int = 0
    gpu_memory_gib: float = 0.0
    memory_gib: float = 0.0
    disk_gib: float = 0.0
    tolerations: tuple[Mapping[str, Any], ...] = ()
    held_nodes: tuple[str, ...] = ()
    taken: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RejectedNode:
    """A node that does not fit a request.

    Attributes:
        name: Name of the node.
        reason: Why it does not fit, in words that follow the name.
    """

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeState:
    """What a provider knows about the nodes of one Workspace.

    Attributes:
        ready: Names of the nodes that can take a pod now, in the provider's order of preference.
        reason: CamelCase category while fewer than asked are ready, "" otherwise.
        message: The cause in the provider's own words and the next step.
        failed: Whether waiting will not help (quota, no such machine type): False instead of Unknown.
        rejected: Nodes that do not fit, each with the reason.
        sku: The machine type of the nodes, where it is known.
        created: Names of the objects that the provider made for the Workspace (NodeClaims).
        gpu_resource: Resource name of the GPUs, the same on all ready nodes; "" for that of `sku`, or NVIDIA's.
        labels: Labels that the nodes made for the Workspace have, and no others: its pods are kept on these nodes by
            them. They must not change while the Workspace exists. Empty where nodes are found by its own selector.
        notes: What the provider has to know at the next call, also after a restart of the operator: it is kept in the
            Workspace's status and comes back in `NodeRequest.notes`.
        pods_first: Whether pods are made although nodes are missing, since nodes come for pods that wait: `reason` and
            `message` then say what the pods wait for until they have nodes.
        wake_after_seconds: When to call again if no change is seen before; None: every half minute until all are ready.
    """

    ready: tuple[str, ...]
    reason: str = ""
    message: str = ""
    failed: bool = False
    rejected: tuple[RejectedNode, ...] = ()
    sku: GpuSku | None = None
    created: tuple[str, ...] = ()
    gpu_resource: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    pods_first: bool = False
    wake_after_seconds: float | None = None


@runtime_checkable
class NodeProvider(Protocol):
    """Makes or finds GPU nodes. Constructors are cheap and do no I/O.

    `ensure` and `release` are called again and again: they compare what is there with what is asked for, and do what
    is missing. They never wait: they return a state that is not ready yet, and are called again.
    """

    @property
    def name(self) -> str:
        """Name of the provider, unique across plugins."""

    @property
    def creates_nodes(self) -> bool:
        """Whether the provider creates machines; if so, it is chosen only where a Workspace asks for it."""

    @property
    def watches(self) -> Sequence[ResourceType]:
        """Types such as NodeClaims whose changes start a pass of the Workspace that is named in their labels."""

    def skus(self) -> Sequence[GpuSku]:
        """Returns the machine types that the provider can create; none where it only finds nodes."""

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        """Asks for missing nodes, releases surplus ones, and returns the state.

        Raises:
            CapacityError: The cloud has no machine or no quota left.
            ProviderError: Anything else went wrong at the provider.
            WorkspaceError: The request can never be met as written.
        """

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        """Deletes what `ensure` made, and returns True once nothing is left; a type that does not exist has nothing."""


@runtime_checkable
class Starts(Protocol):
    """A node provider with something to set up, such as a session of its cloud's API. Optional for a node provider."""

    async def start(self, cluster: Cluster) -> None:
        """Sets up; called once, before the first `ensure`, in the event loop that all later calls are made in.

        An exception, or more than 30 seconds, is logged, and the provider is asked for nodes all the same.
        """


@runtime_checkable
class Closes(Protocol):
    """A node provider with something to give up when the operator ends. Optional for a node provider."""

    async def close(self) -> None:
        """Gives up what `start` set up; called once, after the last call, and given 5 seconds."""


@runtime_checkable
class MakesTypes(Protocol):
    """A node provider that knows its cloud's machine types by their names. Optional for a node provider.

    Clouds have more machine types than `skus` lists. Without this, a provider is chosen for those in its table alone.
    """

    def makes_type(self, instance_type: str) -> bool:
        """Returns whether a machine type, listed or not, is one that the provider can ask its cloud for. No I/O."""
