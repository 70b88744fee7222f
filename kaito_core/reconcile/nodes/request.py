"""The nodes that a Workspace asks a provider for."""

from collections.abc import Iterable

from kaito_core.api import KubeObject, ModelPreset, NodeRequest, Workspace
from kaito_core.api.nodes import GPU_RESOURCES
from kaito_core.reconcile.nodes.sizing import size
from kaito_core.reconcile.nodes.taken_gpus import pod_gpus
from kaito_core.reconcile.objects.podspec import tolerations

__all__ = ["node_request", "restricts_nodes"]


def restricts_nodes(workspace: Workspace) -> bool:
    """Returns whether a Workspace is particular about its nodes."""
    resource = workspace.resource
    selector = resource.label_selector
    return bool(
        resource.instance_type or resource.preferred_nodes or selector.match_labels or selector.match_expressions
    )


def node_request(
    workspace: Workspace, preset: ModelPreset | None, also_tolerated: Iterable[KubeObject] = ()
) -> NodeRequest:
    """Returns the nodes that a Workspace asks a provider for.

    Args:
        workspace: The Workspace.
        preset: Its preset, None where it has its own pod template.
        also_tolerated: Tolerations that the pods of a preset have besides those of GPU nodes.
    """
    resource = workspace.resource
    own: KubeObject = (workspace.inference.template or {}).get("spec", {})
    tolerated = list(also_tolerated)
    if preset is not None:
        sizing = size(preset, workspace.count, None)
        # Fewer GPUs may do if they are larger than those of the preset's authors: `size` decides for a known machine.
        gpus, gpu_memory, memory, disk = min(sizing.gpus, 1), sizing.gpu_memory_gib, sizing.memory_gib, preset.disk_gib
    else:
        gpus, gpu_memory, memory, disk = pod_gpus(own), 0.0, 0.0, 0.0
        tolerated += own.get("tolerations", [])
    if workspace.inference.weights is not None and workspace.inference.weights.claim:
        disk = 0.0
    if gpus or preset is None:
        tolerated += tolerations(*GPU_RESOURCES)
    held = workspace.status.get("workerNodes")
    return NodeRequest(
        workspace=workspace.name,
        namespace=workspace.namespace,
        uid=workspace.metadata.uid,
        count=workspace.count,
        instance_type=resource.instance_type,
        match_labels=resource.label_selector.match_labels,
        match_expressions=tuple(
            expression.model_dump(by_alias=True) for expression in resource.label_selector.match_expressions
        ),
        preferred_nodes=resource.preferred_nodes,
        gpus=gpus,
        gpu_memory_gib=gpu_memory,
        memory_gib=memory,
        disk_gib=disk,
        tolerations=tuple(tolerated),
        held_nodes=tuple(name for name in held if isinstance(name, str)) if isinstance(held, list) else (),
        annotations=workspace.metadata.annotations,
        notes=_notes(workspace),
    )


def _notes(workspace: Workspace) -> dict[str, str]:
    notes = workspace.status.get("nodeNotes")
    pairs = notes.items() if isinstance(notes, dict) else ()
    return {key: value for key, value in pairs if isinstance(value, str)}
