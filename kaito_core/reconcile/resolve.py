"""From a parsed Workspace to what plugins know about it: its preset, and one fetch step for each adapter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kaito_core.api import FetchStep, GpuSku, ModelPreset, Workspace
from kaito_core.api.serving import ADAPTERS_PATH, WEIGHTS_PATH
from kaito_core.builtin.commands import copy_folder, hub_token
from kaito_core.builtin.image import pull_policy
from kaito_core.errors import AdapterSpecError, FieldError, InvalidWorkspaceError
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.rollout import check_rollout
from kaito_core.reconcile.sizing import size

__all__ = ["Resolved", "adapter_steps", "resolve", "weights_step"]

_OPTIONS = "inference.preset.presetOptions"
#: Where upstream's images, and so the images of users who come from there, hold the weights.
_IMAGE_WEIGHTS = "/workspace/tfs/weights"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A Workspace with what the plugins say about it.

    Attributes:
        preset: The preset, None where the Workspace brings its own pod template.
        weights: The step that puts the weights in place, None without a preset.
        adapters: The steps that put the adapters in place, by folder ("name/revision") in the Workspace's order.
        machines: Machine types to choose from: those of the provider that knows resource.instanceType.
    """

    workspace: Workspace
    preset: ModelPreset | None
    weights: FetchStep | None
    adapters: Mapping[str, FetchStep]
    machines: tuple[GpuSku, ...] = ()


def resolve(workspace: Workspace, registry: PluginRegistry) -> Resolved:
    """Returns the Workspace with its preset and steps, having checked everything that needs no cluster.

    Raises:
        WorkspaceError: The preset or an adapter source is not installed, it does not fit the machine type, or a plugin
            objects.
    """
    spec = workspace.inference.preset
    if spec is None:
        _refuse(check_rollout(workspace.metadata.annotations, distributed=False))
        _refuse(registry.objections(workspace, None))
        return Resolved(workspace, None, None, {})
    preset = registry.preset(spec.name)
    _refuse(check_rollout(workspace.metadata.annotations, distributed=preset.distributed))
    weights = weights_step(workspace, preset)
    adapters = adapter_steps(workspace, registry)
    _refuse(registry.objections(workspace, preset))
    sku, machines = _machines(workspace.resource.instance_type, registry)
    size(preset, workspace.resource.count, sku, machines)  # before anything is made that would be too small
    return Resolved(workspace, preset, weights, adapters, machines)


def _machines(instance_type: str, registry: PluginRegistry) -> tuple[GpuSku | None, tuple[GpuSku, ...]]:
    """Returns a machine type if a provider knows it, and all others of that provider."""
    if not instance_type:
        return None, ()
    known = list(registry.machines())
    for provider, sku in known:
        if sku.name.casefold() == instance_type.casefold():
            return sku, tuple(other for name, other in known if name == provider)
    return None, ()


def adapter_steps(workspace: Workspace, registry: PluginRegistry) -> dict[str, FetchStep]:
    """Returns the fetch step of each adapter, by its folder.

    Raises:
        WorkspaceError: A source is not installed or refuses its reference.
    """
    errors: list[FieldError] = []
    steps: dict[str, FetchStep] = {}
    spec = workspace.inference.preset
    secret = spec.preset_options.model_access_secret if spec is not None else ""
    for index, adapter in enumerate(workspace.inference.adapters):
        ref = replace(adapter.ref(index), access_secret=secret)
        source = registry.source(ref.scheme, ref.field)
        try:
            faults = list(source.check(ref))
            if not faults:
                steps[ref.folder] = source.fetch(ref, f"{ADAPTERS_PATH}/{ref.folder}")
        except Exception as error:  # a plugin's mistake must not end the pass without a word to the user
            plugin = registry.origin("adapter source", source.name)
            faults = [
                FieldError(
                    ref.field,
                    f"cannot be read: the adapter source '{source.name}' of plugin '{plugin}' failed with "
                    f"{type(error).__name__}: {error}",
                )
            ]
        errors.extend(faults)
    if errors:
        raise AdapterSpecError(errors)
    return steps


def weights_step(workspace: Workspace, preset: ModelPreset) -> FetchStep:
    """Returns the step that puts the model's weights in place: out of the user's image, or from the hub.

    Raises:
        InvalidWorkspaceError: The preset needs an image or a secret that the Workspace does not name.
    """
    spec = workspace.inference.preset
    assert spec is not None
    options = spec.preset_options
    if options.image:
        return FetchStep(
            image=options.image,
            # What the hub's client leaves in an image is a folder of links.
            command=copy_folder(_IMAGE_WEIGHTS, WEIGHTS_PATH, follow_links=True),
            pull_secrets=options.image_pull_secrets,
            pull_policy=pull_policy(options.image),
        )
    closed = "gated" if preset.weights.gated else "private" if preset.access == "private" else ""
    if closed and not options.model_access_secret:
        raise InvalidWorkspaceError(
            [
                FieldError(
                    f"{_OPTIONS}.modelAccessSecret",
                    f"is required: '{preset.weights.repository}' is {closed}; name a Secret whose key HF_TOKEN holds a "
                    f"token, or put the weights into an image and name it in {_OPTIONS}.image",
                )
            ]
        )
    return FetchStep(
        command=(
            "kaito-runtime",
            "fetch-weights",
            *("--repository", preset.weights.repository),
            *("--revision", preset.weights.revision),
            *("--to", WEIGHTS_PATH),
        ),
        secret_env=hub_token(options.model_access_secret),
        pull_secrets=options.image_pull_secrets,  # the runtime's own image may be in a private registry too
    )


def _refuse(errors: list[FieldError]) -> None:
    if errors:
        raise InvalidWorkspaceError(errors)
