"""The faults of a Workspace that take plugins to find. Those of the document alone are found in `api.workspace`."""

from collections.abc import Sequence

from kaito_core.api import AdapterRef, AdapterSource, ModelPreset, Workspace
from kaito_core.errors import AdapterSpecError, FieldError, InvalidWorkspaceError, PluginError
from kaito_core.plugins import PluginRegistry
from kaito_core.plugins.calls import plugin_call
from kaito_core.reconcile.objects.rollout import check_rollout
from kaito_core.reconcile.objects.service import check_service

__all__ = ["source_failure", "validate"]

_OPTIONS = "inference.preset.presetOptions"


def validate(
    workspace: Workspace, preset: ModelPreset | None, refs: Sequence[AdapterRef], registry: PluginRegistry
) -> None:
    """Checks a Workspace against what is installed.

    Args:
        workspace: The Workspace.
        preset: Its preset, None where it has its own pod template.
        refs: The references of its adapters.
        registry: The adapter sources, and the plugins that may object.

    Raises:
        InvalidWorkspaceError: An annotation or the access to the weights is wrong, or a plugin objects.
        UnknownSourceError: No plugin reads a reference's scheme.
        AdapterSpecError: A source refuses its reference, or fails; all references are checked.
    """
    distributed = preset is not None and preset.distributed
    _refuse(check_rollout(workspace.metadata.annotations, distributed=distributed))
    _refuse(list(check_service(workspace)))
    if preset is not None:
        _refuse([*_weights_faults(workspace, preset), *_taken_names(workspace, preset)])
    if faults := [fault for ref in refs for fault in _reference_faults(ref, registry)]:
        raise AdapterSpecError(faults)
    _refuse(registry.objections(workspace, preset))


def _refuse(faults: list[FieldError]) -> None:
    if faults:
        raise InvalidWorkspaceError(faults)


def _weights_faults(workspace: Workspace, preset: ModelPreset) -> list[FieldError]:
    """Returns a fault where the weights need a token or an image, and the Workspace names neither."""
    spec = workspace.inference.preset
    closed = "gated" if preset.weights.gated else "private" if preset.access == "private" else ""
    if not closed or spec is None or spec.preset_options.image or spec.preset_options.model_access_secret:
        return []
    return [
        FieldError(
            f"{_OPTIONS}.modelAccessSecret",
            f"is required: '{preset.weights.repository}' is {closed}; name a Secret whose key HF_TOKEN holds a token, "
            f"or put the weights into an image and name it in {_OPTIONS}.image",
        )
    ]


def _taken_names(workspace: Workspace, preset: ModelPreset) -> list[FieldError]:
    """Returns a fault for each adapter and blend with the preset's model id, where the Workspace names its weights."""
    inference = workspace.inference
    if inference.preset is None or preset.name == inference.preset.name:
        return []  # found in the document alone
    names = [(f"inference.adapters[{i}].source.name", adapter.name) for i, adapter in enumerate(inference.adapters)]
    names += [(f"inference.blends[{i}].name", blend.name) for i, blend in enumerate(inference.blends)]
    return [
        FieldError(field, f"must be unique, '{name}' is also the preset that serves inference.preset.name")
        for field, name in names
        if name == preset.name
    ]


def _reference_faults(ref: AdapterRef, registry: PluginRegistry) -> list[FieldError]:
    source = registry.source(ref.scheme, ref.field)
    try:
        with plugin_call(registry.origin("adapter source", source.name), f"check of adapter source '{source.name}'"):
            return list(source.check(ref))
    except Exception as error:
        return [source_failure(ref, source, error, registry)]


def source_failure(ref: AdapterRef, source: AdapterSource, error: Exception, registry: PluginRegistry) -> FieldError:
    """Returns the fault of a reference whose source raised an exception: the user learns which plugin is broken."""
    if isinstance(error, PluginError):
        return FieldError(ref.field, f"cannot be read: {error}")
    plugin = registry.origin("adapter source", source.name)
    return FieldError(
        ref.field,
        f"cannot be read: the adapter source '{source.name}' of plugin '{plugin}' failed with "
        f"{type(error).__name__}: {error}",
    )
