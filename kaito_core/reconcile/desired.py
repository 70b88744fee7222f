"""From a resolved Workspace and its nodes to what should exist: the Workload and the ServingConfig."""

from collections.abc import Sequence

from kaito_core.api import (
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
from kaito_core.reconcile.resolve import Resolved
from kaito_core.reconcile.sizing import size, startup_seconds
from kaito_core.settings import Settings

__all__ = ["gpu_resource", "relocate_image", "runtime_image", "serving_config", "workload"]


def relocate_image(image: str, registry: str) -> str:
    """Returns an image under another registry and path, for clusters that reach only their own registry."""
    return f"{registry.rstrip('/')}/{image.rpartition('/')[2]}" if registry else image


def runtime_image(preset: ModelPreset, settings: Settings) -> str:
    """Returns the image that serves a preset."""
    return settings.runtime_image or relocate_image(preset.image, settings.image_registry)


def gpu_resource(nodes: NodeState) -> str:
    """Returns what the nodes call a GPU."""
    return nodes.gpu_resource or (nodes.sku.gpu_resource if nodes.sku is not None else NVIDIA_GPU)


def workload(resolved: Resolved, settings: Settings, nodes: NodeState, names: Sequence[str]) -> Workload:
    """Returns what the pods of a preset run.

    Args:
        resolved: A Workspace with a preset.
        settings: For images.
        nodes: What the provider says of the nodes.
        names: Names of the nodes that pods are pinned to; none: any.

    Raises:
        DoesNotFitError: The machines are too small.
    """
    preset, weights = resolved.preset, resolved.weights
    assert preset is not None and weights is not None
    sizing = size(preset, resolved.workspace.resource.count, nodes.sku, resolved.machines)
    secrets = [secret for step in (weights, *resolved.adapters.values()) for secret in step.pull_secrets]
    return Workload(
        kind="StatefulSet" if preset.distributed else "Deployment",
        replicas=sizing.replicas,
        image=runtime_image(preset, settings),
        model=preset.name,
        gpus=sizing.gpus,
        gpu_resource=gpu_resource(nodes),
        memory_gib=sizing.memory_gib,
        disk_gib=preset.disk_gib,
        weights=weights,
        adapters=resolved.adapters,
        startup_seconds=startup_seconds(preset),
        nodes=tuple(sorted(names)),
        pull_secrets=tuple(dict.fromkeys(secrets)),
    )


def serving_config(resolved: Resolved) -> ServingConfig:
    """Returns what the pods of a preset serve: everything of it can change without a new pod."""
    workspace, preset = resolved.workspace, resolved.preset
    assert preset is not None
    return ServingConfig(
        generation=workspace.generation,
        model=ServedModel(
            name=preset.name,
            recipe=preset.recipe,
            dtype=preset.dtype if preset.gpus else "auto",
            context_length=preset.context_length,
        ),
        adapters=_served_adapters(workspace),
        blends=tuple(ServedBlend(name=blend.name, strengths=blend.strengths) for blend in workspace.inference.blends),
    )


def _served_adapters(workspace: Workspace) -> tuple[ServedAdapter, ...]:
    return tuple(
        ServedAdapter(
            name=adapter.name, strength=adapter.strength, digest=adapter.digest, path=adapter.ref(index).folder
        )
        for index, adapter in enumerate(workspace.inference.adapters)
    )
