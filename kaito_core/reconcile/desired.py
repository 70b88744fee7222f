"""Everything that should exist for one Workspace. Each object is made here, once in a pass."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kaito_core.api import (
    FetchStep,
    KubeObject,
    ModelPreset,
    NodeState,
    ServedAdapter,
    ServedBlend,
    ServedLimits,
    ServedModel,
    ServingConfig,
    Workload,
    Workspace,
)
from kaito_core.api.nodes import GPU_RESOURCES, NVIDIA_GPU
from kaito_core.api.quantity import device_count
from kaito_core.errors import FieldError
from kaito_core.reconcile.nodes.sizing import size, startup_seconds
from kaito_core.reconcile.notices import name_notices
from kaito_core.reconcile.objects.compare import has_same_pods
from kaito_core.reconcile.objects.manifests import preset_manifests, template_manifests
from kaito_core.reconcile.objects.placement import pod_affinity
from kaito_core.reconcile.objects.podspec import RUNTIME_CONTAINER, adapter_container, pod_template
from kaito_core.reconcile.objects.scaling import with_replicas
from kaito_core.reconcile.resolve import Resolved, ResolvedAdapter
from kaito_core.settings import Settings

__all__ = ["Desired", "desired", "relocate_image"]


@dataclass(frozen=True, slots=True)
class _Gpus:
    """The GPUs of a pod: their resource name and number."""

    resource: str
    count: int


@dataclass(frozen=True, slots=True)
class Desired:
    """What should exist for one Workspace.

    Attributes:
        workspace: The Workspace.
        nodes: What the provider says about the nodes.
        objects: The manifests, in the order of creation; the workload is the last.
        replicas: The number of pods: the Workspace's, or that of whoever has scaled the Deployment itself.
        adapters: The adapters, in the Workspace's order.
        notices: How the name of the preset was understood, where another name is written.
        late_containers: For each adapter, by folder, the container that fetches it into a pod that runs already.
        unused: What the Workspace says that has no effect.
    """

    workspace: Workspace
    nodes: NodeState
    objects: tuple[KubeObject, ...]
    replicas: int
    adapters: tuple[ResolvedAdapter, ...] = ()
    notices: tuple[FieldError, ...] = ()
    late_containers: Mapping[str, KubeObject] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def workload(self) -> KubeObject:
        """The Deployment or StatefulSet."""
        return self.objects[-1]


def desired(resolved: Resolved, nodes: NodeState, settings: Settings, live: KubeObject | None = None) -> Desired:
    """Returns what should exist for a Workspace.

    How many GPUs a pod has, and what they are called, is decided when the pods are made. It stays as long as nothing
    else about the pods changes: other nodes are not worth a restart.

    Args:
        resolved: The Workspace with its preset and adapters.
        nodes: What the provider says; where no particular nodes are needed, an empty state.
        settings: Operator settings.
        live: The workload that there is, None for none.

    Raises:
        DoesNotFitError: The machines are too small.
    """
    workspace, preset, weights = resolved.workspace, resolved.preset, resolved.weights
    if preset is None or weights is None:
        *others, whole = template_manifests(workspace, nodes.labels, settings, pods_first=nodes.pods_first)
        counted, replicas = with_replicas(whole, live)
        return Desired(workspace, nodes, (*others, counted), replicas, unused=resolved.unused)
    image = _runtime_image(preset, settings)
    workload, template = _pods(resolved, preset, weights, image, nodes, live)
    *others, whole = preset_manifests(workspace, workload, template, _serving_config(resolved, preset), settings)
    counted, replicas = with_replicas(whole, live)
    return Desired(
        workspace,
        nodes,
        (*others, counted),
        replicas,
        resolved.adapters,
        tuple(name_notices(workspace, preset)),
        {
            adapter.ref.folder: adapter_container(adapter.ref.folder, adapter.fetch, image, resolved.pod, late=True)
            for adapter in resolved.adapters
        },
        resolved.unused,
    )


def _pods(
    resolved: Resolved,
    preset: ModelPreset,
    weights: FetchStep,
    image: str,
    nodes: NodeState,
    live: KubeObject | None,
) -> tuple[Workload, KubeObject]:
    """Returns what the pods run, and their template: with the GPUs that they have if nothing else changes."""
    decided = _decided_gpus(live)
    if live is not None and decided is not None:
        workload = _workload(resolved, preset, weights, image, nodes, decided)
        template = pod_template(resolved.workspace, workload)
        if has_same_pods(template, live):
            return workload, template
    workload = _workload(resolved, preset, weights, image, nodes, None)
    return workload, pod_template(resolved.workspace, workload)


def _decided_gpus(live: KubeObject | None) -> _Gpus | None:
    """Returns the GPUs that the pods of a workload have, None for none."""
    for container in (live or {}).get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
        limits = (container.get("resources") or {}).get("limits") or {}
        for resource in GPU_RESOURCES if container.get("name") == RUNTIME_CONTAINER else ():
            if count := device_count(limits.get(resource, 0)):
                return _Gpus(resource, count)
    return None


def relocate_image(image: str, registry: str) -> str:
    """Returns an image under another registry and path, for clusters that reach only their own registry."""
    return f"{registry.rstrip('/')}/{image.rpartition('/')[2]}" if registry else image


def _runtime_image(preset: ModelPreset, settings: Settings) -> str:
    return settings.runtime_image or relocate_image(preset.image, settings.image_registry)


def _gpu_resource(nodes: NodeState) -> str:
    """Returns the resource name of the nodes' GPUs."""
    return nodes.gpu_resource or (nodes.sku.gpu_resource if nodes.sku is not None else NVIDIA_GPU)


def _machine_types(resolved: Resolved) -> list[str]:
    """Returns resource.instanceType as the user and as the provider writes it; none where any machine will do."""
    asked = resolved.workspace.resource.instance_type
    known = [sku.name for sku in resolved.machines if sku.name.casefold() == asked.casefold()]
    return [asked, *known] if asked else []


def _workload(
    resolved: Resolved,
    preset: ModelPreset,
    weights: FetchStep,
    image: str,
    nodes: NodeState,
    decided: _Gpus | None,
) -> Workload:
    """Returns what the pods of a preset run; `decided` are their GPUs, None lets the nodes decide."""
    count = resolved.workspace.count
    sizing = size(preset, count, None if decided is not None else nodes.sku, resolved.machines)
    gpus = sizing.gpus if decided is None or not preset.gpus else decided.count
    adapters = {adapter.ref.folder: adapter.fetch for adapter in resolved.adapters}
    secrets = [secret for step in (weights, *adapters.values()) for secret in step.pull_secrets]
    return Workload(
        kind="StatefulSet" if preset.distributed else "Deployment",
        replicas=sizing.replicas,
        image=image,
        model=preset.name,
        gpus=gpus,
        gpu_resource=decided.resource if decided is not None else _gpu_resource(nodes),
        memory_gib=sizing.memory_gib,
        disk_gib=preset.disk_gib,
        # An autoscaler may not know the disk of machines that it has not made yet.
        requests_disk=not nodes.labels and not nodes.pods_first and resolved.kept is None,
        weights=weights,
        adapters=adapters,
        startup_seconds=startup_seconds(preset),
        affinity=pod_affinity(
            resolved.workspace,
            nodes.labels,
            machine_types=_machine_types(resolved),
            affinity=resolved.pod.get("affinity"),
            gpu_memory_gib=sizing.gpu_memory_gib / gpus if gpus and not nodes.pods_first else 0.0,
            labels_apart=nodes.pods_first,
        ),
        node_selector=resolved.workspace.resource.label_selector.match_labels if nodes.pods_first else {},
        pull_secrets=tuple(dict.fromkeys(secrets)),
        options=resolved.pod,
        arguments=resolved.options.arguments,
        api_key_secret=resolved.options.api_key_secret,
        config_revision=resolved.options.revision,
        kept=resolved.kept,
    )


def _serving_config(resolved: Resolved, preset: ModelPreset) -> ServingConfig:
    """Returns what the pods of a preset serve: all of it can change without a new pod."""
    workspace = resolved.workspace
    return ServingConfig(
        generation=workspace.generation,
        model=ServedModel(
            name=preset.name,
            recipe=preset.recipe,
            dtype=preset.dtype if preset.gpus else "auto",
            quantization=preset.quantization,
            context_length=preset.context_length,
            adapter_memory=preset.adapter_memory,
            max_adapter_rank=preset.max_adapter_rank,
        ).model_copy(update=resolved.options.of("model")),
        adapters=tuple(
            ServedAdapter.checked(
                name=entry.adapter.name,
                strength=entry.adapter.strength,
                digest=entry.adapter.digest,
                path=entry.ref.folder,
            )
            for entry in resolved.adapters
        ),
        blends=tuple(
            ServedBlend.checked(name=blend.name, strengths=blend.strengths) for blend in workspace.inference.blends
        ),
        limits=ServedLimits(**limits) if (limits := resolved.options.of("limit")) else None,
    )
