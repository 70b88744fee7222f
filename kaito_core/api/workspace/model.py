"""The Workspace as records: the fields that a user may write, and the rules of each part by itself.

Reading a document, and the rules between its parts, are in `parse`; rules that take plugins to check (is the preset
installed?) in `reconcile.validate`. The CRD is generated from these records by `crd`.
"""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from kaito_core.api.adapter import MAX_ADAPTERS
from kaito_core.api.cluster import ResourceType
from kaito_core.api.messages import fault
from kaito_core.api.workspace.adapters import Adapter, Blend, Secrets
from kaito_core.api.workspace.document import Document
from kaito_core.api.workspace.formats import (
    HOST_PATH,
    IMAGE,
    INSTANCE_TYPE,
    OBJECT_NAME,
    OPTIONAL_OBJECT_NAME,
    PRESET_NAME_IN_USE,
    WORKSPACE_NAME,
)
from kaito_core.api.workspace.freeform import FreeForm, PodTemplate
from kaito_core.api.workspace.pod import PodOptions
from kaito_core.api.workspace.pod_parts import MAX_LISTED, Annotations
from kaito_core.api.workspace.selector import LabelSelector

__all__ = [
    "GROUP",
    "HOLDER_ANNOTATION",
    "MAX_BLENDS",
    "MAX_COUNT",
    "PROVIDER_ANNOTATION",
    "VERSIONS",
    "WORKSPACES",
    "Inference",
    "KeptWeights",
    "Preset",
    "PresetOptions",
    "Resource",
    "Scale",
    "Service",
    "Workspace",
]

GROUP = "kaito.sh"
VERSIONS = ("v1alpha1", "v1beta1")  # one schema; the last one is stored
WORKSPACES = ResourceType(GROUP, VERSIONS[-1], "workspaces", "Workspace")
PROVIDER_ANNOTATION = "kaito.sh/node-provider"
#: Names the provider that made the nodes: by the time they are released the Workspace may name another one.
HOLDER_ANNOTATION = "kaito.sh/nodes-provider"

MAX_BLENDS = 64
MAX_COUNT = 1000


class Resource(Document):
    """The nodes that serve a Workspace.

    Attributes:
        count: Number of replicas; for a distributed preset the number of nodes that share one model. 0 ends the pods
            and gives machines back. Where spec.replicas is set, that counts instead.
        instance_type: Machine type, as the cloud or the label node.kubernetes.io/instance-type of prepared nodes calls
            it.
        label_selector: Labels that nodes must have.
        preferred_nodes: Names of prepared nodes to use first; without a label selector no others are used.
    """

    count: int = Field(default=1, ge=0, le=MAX_COUNT, strict=True)
    instance_type: Annotated[str, INSTANCE_TYPE] = ""
    label_selector: LabelSelector = LabelSelector()
    preferred_nodes: tuple[Annotated[str, OBJECT_NAME], ...] = Field(default=(), max_length=MAX_COUNT)


class PresetOptions(Document):
    """How a preset differs for this Workspace.

    Attributes:
        image: Your own image with the weights in /workspace/tfs/weights.
        image_pull_secrets: Names of Secrets to pull images with.
        model_access_secret: Name of a Secret whose key HF_TOKEN opens gated models and private adapters.
    """

    image: Annotated[str, IMAGE] = ""
    image_pull_secrets: Secrets = ()
    model_access_secret: Annotated[str, OPTIONAL_OBJECT_NAME] = ""


class Preset(Document):
    """The model, by the name of an installed preset.

    Attributes:
        name: Name of the preset, or the hub's name of the weights that it serves; another "org/model" where the
            operator allows models without a preset.
        access_mode: "private" serves weights from your own image; it needs presetOptions.image.
        preset_options: How the preset differs for this Workspace.
    """

    name: Annotated[str, PRESET_NAME_IN_USE]
    access_mode: Literal["public", "private"] = "public"
    preset_options: PresetOptions = PresetOptions()


class Service(Document):
    """The Service of a Workspace.

    Attributes:
        type: ClusterIP, the default, LoadBalancer or NodePort.
        annotations: Annotations of the Service, such as a cloud's that asks for an internal load balancer.
        load_balancer_class: Which load balancer serves it, for the type LoadBalancer.
        load_balancer_source_ranges: Addresses that may reach the load balancer, such as 10.0.0.0/8.
    """

    type: Literal["", "ClusterIP", "LoadBalancer", "NodePort"] = ""
    annotations: Annotations = Field(default_factory=dict)
    load_balancer_class: Annotated[str, Field(max_length=317)] = ""
    load_balancer_source_ranges: tuple[
        Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$", max_length=64)], ...
    ] = Field(default=(), max_length=MAX_LISTED)


class KeptWeights(Document):
    """Where the weights stay when pods end, so that they are fetched once: exactly one of claim and hostPath.

    Attributes:
        claim: Name of a PersistentVolumeClaim that all pods share. With several pods it must be one that several nodes
            can mount.
        host_path: Folder of each node that keeps them, in one of those that the operator's settings allow.
    """

    claim: Annotated[str, OPTIONAL_OBJECT_NAME] = ""
    host_path: Annotated[str, HOST_PATH] = ""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name, value in (("claim", self.claim), ("hostPath", self.host_path)) if value]
        if len(given) != 1:
            raise fault(f"must have exactly one of claim and hostPath, got {' and '.join(given) or 'none'}")
        return self


class Inference(Document):
    """What is served: a preset with adapters, or your own pod template.

    Attributes:
        preset: The model to serve.
        template: Your own PodTemplateSpec, instead of a preset; kaito adds labels, tolerations and node affinity.
        adapters: LoRA adapters of the preset.
        blends: Further model ids, each a mix of the adapters.
        config: Name of a ConfigMap in the same namespace with options of the server in its key inference_config.yaml.
        weights: Where the weights of the preset stay when pods end.
        pod: What the pods of the preset take along for their cluster.
        service: The Service.
    """

    preset: Preset | None = None
    template: PodTemplate | None = None
    adapters: tuple[Adapter, ...] = Field(default=(), max_length=MAX_ADAPTERS)
    blends: tuple[Blend, ...] = Field(default=(), max_length=MAX_BLENDS)
    config: Annotated[str, OPTIONAL_OBJECT_NAME] = ""
    weights: KeptWeights | None = None
    pod: PodOptions | None = None
    service: Service | None = None

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.preset is None and self.template is None:
            raise fault("must have a preset or a template, got neither")
        if self.preset is not None and self.template is not None:
            raise fault("must have a preset or a template, got both")
        if self.template is not None and (self.adapters or self.blends):
            raise fault("must have no adapters and no blends beside a template: only presets apply adapters")
        if self.template is not None and (self.pod is not None or self.weights is not None):
            raise fault("must have no pod and no weights beside a template, which has a pod and volumes of its own")
        return self


class Scale(Document):
    """What `kubectl scale` and autoscalers set, and nothing else: API servers take its path under spec alone.

    Attributes:
        replicas: Number of replicas, in place of resource.count: kubectl scale, the HorizontalPodAutoscaler and KEDA
            write it. Leave it out to have resource.count decide.
    """

    replicas: int | None = Field(default=None, ge=0, le=MAX_COUNT, strict=True)


class _Metadata(Document):
    """What kaito reads of a Workspace's metadata."""

    model_config = ConfigDict(extra="ignore")  # the API server adds fields of its own

    name: Annotated[str, WORKSPACE_NAME]
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


class Workspace(Document):
    """A model that is served on Kubernetes. As upstream has it, its fields are at the top level and not under `spec`.

    Attributes:
        api_version: "kaito.sh/v1beta1" or "kaito.sh/v1alpha1".
        kind: "Workspace".
        metadata: Name, namespace, labels and annotations.
        spec: The number of replicas, where an autoscaler sets it.
        resource: The nodes that serve it.
        inference: What is served.
        status: What the operator last wrote.
    """

    api_version: str
    kind: Literal["Workspace"]
    metadata: _Metadata
    spec: Scale = Scale()
    resource: Resource = Resource()
    inference: Inference
    status: FreeForm = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """metadata.name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """metadata.namespace."""
        return self.metadata.namespace

    @property
    def generation(self) -> int:
        """metadata.generation."""
        return self.metadata.generation

    @property
    def count(self) -> int:
        """Number of replicas: spec.replicas, or resource.count where that is left out."""
        return self.resource.count if self.spec.replicas is None else self.spec.replicas
