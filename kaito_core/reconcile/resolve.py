"""What plugins know about a Workspace: its preset, the steps that fetch its files, and machine types to choose from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kaito_core.api import AdapterRef, FetchStep, GpuSku, KubeObject, ModelPreset, Workspace
from kaito_core.api.serving import ADAPTERS_PATH, KEPT_PATH, WEIGHTS_PATH
from kaito_core.api.workload import KeptVolume
from kaito_core.api.workspace.adapters import Adapter
from kaito_core.api.workspace.model import PresetOptions
from kaito_core.builtin.commands import copy_folder, hub_token
from kaito_core.errors import AdapterSpecError, FieldError, InvalidWorkspaceError
from kaito_core.plugins import PluginRegistry
from kaito_core.plugins.calls import plugin_call
from kaito_core.reconcile.nodes.sizing import size
from kaito_core.reconcile.notices import notices
from kaito_core.reconcile.objects.podspec import server_requests
from kaito_core.reconcile.options.pod import pod_faults, pod_options
from kaito_core.reconcile.options.serving import ServingOptions, read_options
from kaito_core.reconcile.options.unused import unused
from kaito_core.reconcile.options.weights import kept_volume
from kaito_core.reconcile.validate import source_failure, validate

__all__ = ["Resolved", "ResolvedAdapter", "resolve"]

#: Where upstream's images, and so the images of users who come from there, hold the weights.
_IMAGE_WEIGHTS = "/workspace/tfs/weights"


@dataclass(frozen=True, slots=True)
class ResolvedAdapter:
    """An adapter of a Workspace with what the plugins know about it.

    Attributes:
        adapter: The adapter as the Workspace has it.
        ref: Where it comes from.
        fetch: The step that fetches its files.
    """

    adapter: Adapter
    ref: AdapterRef
    fetch: FetchStep


@dataclass(frozen=True, slots=True)
class Resolved:
    """A Workspace with what the plugins know about it.

    Attributes:
        preset: The preset, None where the Workspace has its own pod template.
        weights: The step that puts the weights in place, None without a preset.
        adapters: The adapters, in the Workspace's order.
        machines: Machine types to choose from: those of the provider that knows resource.instanceType.
        pod: What the pods take along for their cluster, as Kubernetes writes it; nothing without a preset.
        notices: How fields that are right were understood, where it is worth saying.
        options: What the ConfigMap of `inference.config` says about serving.
        unused: What the Workspace says that has no effect.
        kept: The volume that keeps the weights, None where they go with the pods.
    """

    workspace: Workspace
    preset: ModelPreset | None = None
    weights: FetchStep | None = None
    adapters: tuple[ResolvedAdapter, ...] = ()
    machines: tuple[GpuSku, ...] = ()
    pod: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[FieldError, ...] = ()
    options: ServingOptions = field(default_factory=ServingOptions)
    unused: tuple[str, ...] = ()
    kept: KeptVolume | None = None


def resolve(
    workspace: Workspace,
    registry: PluginRegistry,
    config: Mapping[str, Any] | None = None,
    claim: KubeObject | None = None,
) -> Resolved:
    """Returns a Workspace with its preset and steps, after checking all that can be checked without a cluster.

    Args:
        workspace: The Workspace.
        registry: The plugins.
        config: The data of the ConfigMap that `inference.config` names, None where it is not at hand.
        claim: The PersistentVolumeClaim that `inference.weights` names, None likewise.

    Raises:
        WorkspaceError: The preset or an adapter source is not installed, `validate` finds a fault, or the preset does
            not fit the machine type.
        PluginFailedError: What a plugin says of the pods cannot be used.
    """
    spec = workspace.inference.preset
    if spec is None:
        validate(workspace, None, (), registry)
        return Resolved(workspace, unused=unused(workspace, ServingOptions()))
    preset = registry.preset(spec.name)
    refs = tuple(
        adapter.ref(f"inference.adapters[{index}]", spec.preset_options.model_access_secret)
        for index, adapter in enumerate(workspace.inference.adapters)
    )
    validate(workspace, preset, refs, registry)
    sku, machines = _machines(workspace.resource.instance_type, registry)
    sizing = size(preset, workspace.count, sku, machines)  # before anything is made that would be too small
    options = ServingOptions()
    if config is not None:
        options = read_options(workspace.inference.config, config, preset.context_length)
    kept = kept_volume(workspace, preset, registry.settings, claim)
    pod = pod_options(workspace, preset, registry)
    if faults := list(pod_faults(pod, server_requests(sizing.memory_gib))):
        raise InvalidWorkspaceError(faults)
    return Resolved(
        workspace,
        preset,
        _weights_step(spec.preset_options, preset, kept),
        tuple(
            ResolvedAdapter(adapter, ref, _adapter_step(ref, registry))
            for adapter, ref in zip(workspace.inference.adapters, refs, strict=True)
        ),
        machines,
        pod,
        notices(workspace, preset),
        options,
        unused(workspace, options),
        kept,
    )


def _machines(instance_type: str, registry: PluginRegistry) -> tuple[GpuSku | None, tuple[GpuSku, ...]]:
    """Returns a machine type if a provider knows it, and all machine types of that provider."""
    if not instance_type:
        return None, ()
    known = list(registry.machines())
    for provider, sku in known:
        if sku.name.casefold() == instance_type.casefold():
            return sku, tuple(other for name, other in known if name == provider)
    return None, ()


def _adapter_step(ref: AdapterRef, registry: PluginRegistry) -> FetchStep:
    source = registry.source(ref.scheme, ref.field)
    try:
        with plugin_call(registry.origin("adapter source", source.name), f"fetch of adapter source '{source.name}'"):
            step = source.fetch(ref, f"{ADAPTERS_PATH}/{ref.folder}")
    except Exception as error:
        raise AdapterSpecError([source_failure(ref, source, error, registry)]) from error
    # `kaito-fetch` is in the runtime's image, and follows the same settings as the operator.
    return step if step.image else replace(step, env={**registry.settings.for_fetches(), **step.env})


def _weights_step(options: PresetOptions, preset: ModelPreset, kept: KeptVolume | None) -> FetchStep:
    """Returns the step that puts the model's weights in place: out of the user's image, or from the hub."""
    if options.image:
        return FetchStep(
            image=options.image,
            # What the hub's client leaves in an image is a folder of links.
            command=copy_folder(_IMAGE_WEIGHTS, WEIGHTS_PATH, follow_links=True),
            pull_secrets=options.image_pull_secrets,
        )
    return FetchStep(
        command=(
            "kaito-runtime",
            "fetch-weights",
            *("--repository", preset.weights.repository),
            *("--revision", preset.weights.revision),
            *(("--to", WEIGHTS_PATH) if kept is None else ("--to", f"{KEPT_PATH}/{kept.folder}", "--keep")),
        ),
        secret_env=hub_token(options.model_access_secret),
        pull_secrets=options.image_pull_secrets,  # the runtime's own image may be in a private registry too
    )
