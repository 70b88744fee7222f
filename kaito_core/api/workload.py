"""The workload: what the pods of a Workspace run, from which manifests are made; and the names and labels of both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kaito_core.api.adapter import FetchStep
from kaito_core.api.nodes import NVIDIA_GPU

__all__ = [
    "MANAGED_BY_LABEL",
    "MANAGER",
    "SERVING_GENERATION_ANNOTATION",
    "TORCHRUN_PORT",
    "WORKSPACE_LABEL",
    "WORKSPACE_NAMESPACE_LABEL",
    "KeptVolume",
    "Workload",
    "headless_name",
    "serving_name",
]

MANAGER = "kaito"  #: field manager of every write
WORKSPACE_LABEL = "kaito.sh/workspace"
WORKSPACE_NAMESPACE_LABEL = "kaito.sh/workspacenamespace"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
#: Touched on pods when the ServingConfig changed: the kubelet then refreshes the mounted file at once instead of
#: within 90 seconds.
SERVING_GENERATION_ANNOTATION = "kaito.sh/serving-generation"
TORCHRUN_PORT = 29500  # upstream's


def serving_name(workspace: str) -> str:
    """Returns the name of the ConfigMap that holds the ServingConfig."""
    return f"{workspace}-serving"


def headless_name(workspace: str) -> str:
    """Returns the name of the headless Service of a distributed workload."""
    return f"{workspace}-headless"


@dataclass(frozen=True, slots=True)
class KeptVolume:
    """A volume on which weights stay when pods end.

    Attributes:
        source: The volume, as in a pod's volumes, without its name.
        folder: Folder of the weights on it.
    """

    source: Mapping[str, Any]
    folder: str


@dataclass(frozen=True, slots=True)
class Workload:
    """What runs.

    Attributes:
        kind: "StatefulSet" where one replica spans nodes, "Deployment" otherwise.
        replicas: Number of pods.
        image: Image of the runtime.
        model: Model id that applies every adapter of the Workspace; the preset's name.
        gpus: GPUs per pod, 0 for none.
        gpu_resource: Resource name of the GPUs.
        memory_gib: Main memory per pod, in GiB.
        disk_gib: Disk for the weights per pod, in GiB.
        requests_disk: Whether pods ask the scheduler for that disk. On nodes made for them alone there is nothing to
            share, and the machine was asked for with its disk.
        weights: The step that puts the weights in place.
        adapters: The steps that fetch adapters, by folder ("name/revision"), in the Workspace's order.
        startup_seconds: How long loading may take.
        affinity: The kind of node that pods may run on, as a pod's `affinity`; empty: any.
        node_selector: Labels of nodes that pods may run on, where autoscalers are to read them.
        pull_secrets: Image pull secrets of the pod.
        options: What the pods take along for their cluster, as `merged` returns it.
        arguments: Further arguments of the server.
        api_key_secret: Secret with the key that requests must carry, "" for none.
        kept: The volume that keeps the weights, None where they go with the pod.
        config_revision: Changes with what a running server cannot take up from its ServingConfig; "" for nothing.
    """

    kind: Literal["Deployment", "StatefulSet"]
    replicas: int
    image: str
    model: str
    gpus: int
    memory_gib: float
    disk_gib: float
    weights: FetchStep
    adapters: Mapping[str, FetchStep]
    startup_seconds: int
    gpu_resource: str = NVIDIA_GPU
    requests_disk: bool = True
    affinity: Mapping[str, Any] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    api_key_secret: str = ""
    config_revision: str = ""
    kept: KeptVolume | None = None
