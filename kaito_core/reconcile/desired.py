"""Everything that should exist for one Workspace. Each object is made here, once in a pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kaito_core.api import (
    FetchStep,
    KubeObject,
    ModelPreset,
    NodeState,
    ServedAdapter,
    ServedBlend,
    ServedModel,
    ServingConfig,
    Workload,
    Workspace,
)
from kaito_core.api.nodes import NVIDIA_GPU
from kaito_core.reconcile.nodes.sizing import size, startup_seconds
from kaito_core.reconcile.objects.manifests import preset_manifests, template_manifests
from kaito_core.reconcile.objects.podspec import adapter_container
from kaito_core.reconcile.resolve import Resolved, ResolvedAdapter
from kaito_core.settings import Settings

__all__ = ["Desired", "desired", "relocate_image"]


@dataclass(frozen=True, slots=True)
class Desired:
    """What should exist for one Workspace.

    Attributes:
        workspace: The Workspace.
        nodes: What the provider says about the nodes, with those in use first.
        objects: The manifests, in the order of creation; the workload is the last.
        adapters: The adapters, in the Workspace's order.
        late_containers: For each adapter, by folder, the container that fetches it into a pod that runs already.
    """

    workspace: Workspace
    nodes: NodeState
    objects: tuple[KubeObject, ...]
    adapters: tuple[ResolvedAdapter, ...] = ()
    late_containers: Mapping[str, KubeObject] = field(default_factory=dict)

    @property
    def workload(self) -> KubeObject:
        """The Deployment or StatefulSet."""
        return self.objects[-1]


def desired(resolved: Resolved, nodes: NodeState, settings: Settings) -> Desired:
    """Returns what should exist for a Workspace.

    Args:
        resolved: The Workspace with its preset and adapters.
        nodes: What the provider says; where no particular nodes are needed, an empty state.
        settings: Operator settings.

    Raises:
        DoesNotFitError: The machines are too small.
    """
    workspace = resolved.workspace
    nodes = _in_use_first(nodes, workspace)
    names = nodes.ready[: workspace.resource.count]
    if resolved.preset is None or resolved.weights is None:
        return Desired(workspace, nodes, tuple(template_manifests(workspace, names, settings)))
    image = _runtime_image(resolved.preset, settings)
    workload = _workload(resolved, resolved.preset, resolved.weights, image, nodes, names)
    return Desired(
        workspace,
        nodes,
        tuple(preset_manifests(workspace, workload, _serving_config(resolved, resolved.preset), settings)),
        resolved.adapters,
        {folder: adapter_container(folder, step, image, late=True) for folder, step in workload.adapters.items()},
    )


def _in_use_first(nodes: NodeState, workspace: Workspace) -> NodeState:
    """Returns the nodes in order of choice: those in use first, then in the provider's order.

    Pods are pinned to the first ones, and a better node that appears is not worth a restart.
    """
    used = workspace.status.get("workerNodes")
    kept = [name for name in used if name in nodes.ready] if isinstance(used, list) else []
    return replace(nodes, ready=tuple(dict.fromkeys((*kept, *nodes.ready))))


def relocate_image(image: str, registry: str) -> str:
    """Returns an image under another registry and path, for clusters that reach only their own registry."""
    return f"{registry.rstrip('/')}/{image.rpartition('/')[2]}" if registry else image


def _runtime_image(preset: ModelPreset, settings: Settings) -> str:
    return settings.runtime_image or relocate_image(preset.image, settings.image_registry)


def _gpu_resource(nodes: NodeState) -> str:
    """Returns what the nodes call a GPU."""
    return nodes.gpu_resource or (nodes.sku.gpu_resource if nodes.sku is not None else NVIDIA_GPU)


def _workload(
    resolved: Resolved, preset: ModelPreset, weights: FetchStep, image: str, nodes: NodeState, names: Sequence[str]
) -> Workload:
    """Returns what the pods of a preset run; `names` are the nodes that they are pinned to, none for any."""
    sizing = size(preset, resolved.workspace.resource.count, nodes.sku, resolved.machines)
    adapters = {adapter.ref.folder: adapter.fetch for adapter in resolved.adapters}
    secrets = [secret for step in (weights, *adapters.values()) for secret in step.pull_secrets]
    return Workload(
        kind="StatefulSet" if preset.distributed else "Deployment",
        replicas=sizing.replicas,
        image=image,
        model=preset.name,
        gpus=sizing.gpus,
        gpu_resource=_gpu_resource(nodes),
        memory_gib=sizing.memory_gib,
        disk_gib=preset.disk_gib,
        weights=weights,
        adapters=adapters,
        startup_seconds=startup_seconds(preset),
        nodes=tuple(sorted(names)),
        pull_secrets=tuple(dict.fromkeys(secrets)),
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
            context_length=preset.context_length,
        ),
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
    )
