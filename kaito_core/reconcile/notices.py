"""What is worth saying of a Workspace that is right: how a field of it was understood. Nothing is refused for it."""

from kaito_core.api import ModelPreset, Workspace
from kaito_core.api.preset.from_config import generic_id
from kaito_core.api.strength import is_unusual, strength_text
from kaito_core.errors import FieldError

__all__ = ["name_notices", "notices"]


def notices(workspace: Workspace, preset: ModelPreset | None) -> tuple[FieldError, ...]:
    """Returns what to say, each with its field; `preset` is the one that serves, None where there is none."""
    return (*name_notices(workspace, preset), *_strengths(workspace))


def name_notices(workspace: Workspace, preset: ModelPreset | None) -> list[FieldError]:
    """Returns the notice that a preset was found by the name of its weights, none where its own name is written."""
    asked = workspace.inference.preset
    if asked is None or preset is None or preset.name in (asked.name, generic_id(asked.name)):
        return []
    weights = preset.weights
    return [
        FieldError(
            "inference.preset.name",
            f"'{asked.name}' is taken as the preset '{preset.name}', which serves "
            f"{weights.repository}@{weights.revision[:12]}; the model id is '{preset.name}'",
        )
    ]


def _strengths(workspace: Workspace) -> list[FieldError]:
    """Returns a notice for each strength that upstream KAITO refuses."""
    return [
        FieldError(
            f"inference.adapters[{index}].strength",
            f"is applied as written: {strength_text(adapter.strength)} is outside 0 to 1",
        )
        for index, adapter in enumerate(workspace.inference.adapters)
        if is_unusual(adapter.strength)
    ]
