"""From a document to a Workspace: every fault with its field, and the rules between parts of the document."""

from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from kaito_core.api.messages import clipped, describe, field_path, shown
from kaito_core.api.preset.from_config import generic_id
from kaito_core.api.workspace.model import GROUP, VERSIONS, Scale, Workspace
from kaito_core.errors import FieldError, InvalidWorkspaceError

__all__ = ["parse_workspace"]


def parse_workspace(document: object) -> Workspace:
    """Returns the Workspace that a document stands for.

    Args:
        document: What a YAML or JSON parser returned.

    Raises:
        InvalidWorkspaceError: With one FieldError for each fault that was found.
    """
    if fault := _head_fault(document):
        raise InvalidWorkspaceError([fault])
    try:
        workspace = Workspace.model_validate(document)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise InvalidWorkspaceError(
            [FieldError(field_path(found["loc"]), describe(found)) for found in faults]
        ) from error
    if errors := [*_private_weights(workspace), *_duplicate_names(workspace), *_unknown_adapters(workspace)]:
        raise InvalidWorkspaceError(errors)
    return workspace


def _head_fault(document: object) -> FieldError | None:
    if not isinstance(document, Mapping):
        return FieldError("", f"a Workspace must be a mapping, got {shown(document)}")
    known = [f"{GROUP}/{version}" for version in VERSIONS]
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if api_version not in known or kind != "Workspace":
        got = f"{shown(api_version)} and {shown(kind)}"
        return FieldError("apiVersion", f"and kind must be {' or '.join(known)} and Workspace, got {got}")
    if document.get("tuning") is not None:
        return FieldError("tuning", "is not supported: this operator serves models")
    return _misplaced(document.get("spec"))


def _misplaced(spec: object) -> FieldError | None:
    """Returns the fault of a document that has its fields under `spec`, as most kinds of objects do."""
    names = [str(name) for name in spec if name not in Scale.model_fields] if isinstance(spec, Mapping) else []
    if not names:
        return None
    belong = {field.alias or name for name, field in Workspace.model_fields.items()} - {"spec", "status"}
    if not (movable := [name for name in names if name in belong]):
        strange = ", ".join(map(clipped, names))
        return FieldError("spec", f"must hold nothing but replicas, got {strange}; check the spelling or remove it")
    lines = " and ".join(f"spec.{name}" for name in movable)
    return FieldError(
        "spec",
        "must hold nothing but replicas: resource and inference stand beside metadata, not under spec; move "
        f"{lines} there",
    )


def _private_weights(workspace: Workspace) -> Iterator[FieldError]:
    preset = workspace.inference.preset
    if preset is not None and preset.access_mode == "private" and not preset.preset_options.image:
        yield FieldError(
            "inference.preset.presetOptions.image",
            "is required where accessMode is private: your image with the weights in /workspace/tfs/weights",
        )


def _duplicate_names(workspace: Workspace) -> Iterator[FieldError]:
    """Yields a fault for each model id that an earlier part of the document has already."""
    inference = workspace.inference
    taken = {generic_id(inference.preset.name): "inference.preset.name"} if inference.preset is not None else {}
    adapters = [(f"inference.adapters[{i}].source.name", adapter.name) for i, adapter in enumerate(inference.adapters)]
    blends = [(f"inference.blends[{i}].name", blend.name) for i, blend in enumerate(inference.blends)]
    for field, name in [*adapters, *blends]:
        if name in taken:
            yield FieldError(field, f"must be unique, '{name}' is also {taken[name]}")
        taken.setdefault(name, field)


def _unknown_adapters(workspace: Workspace) -> Iterator[FieldError]:
    """Yields a fault for each strength in a blend whose adapter the Workspace does not have."""
    known = [adapter.name for adapter in workspace.inference.adapters]
    for index, blend in enumerate(workspace.inference.blends):
        for name in blend.strengths:
            if name not in known:
                yield FieldError(
                    field_path(("inference", "blends", index, "strengths", name)),
                    f"must name an adapter of this Workspace (known: {', '.join(known) or 'none'})",
                )
