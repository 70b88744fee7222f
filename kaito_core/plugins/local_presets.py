"""Presets of models that no plugin brings, made from a config.json on this machine.

No hub is asked, since presets are looked up while a Workspace is validated.
"""

import json
from pathlib import Path
from typing import Any

from kaito_core.api import ModelPreset
from kaito_core.api.messages import shown
from kaito_core.api.preset.from_config import GENERIC_NAME, generic_preset
from kaito_core.errors import FieldError, InvalidWorkspaceError
from kaito_core.settings import Settings

__all__ = ["folder_preset", "local_preset"]

_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"


def local_preset(name: str, settings: Settings, nearest: str = "") -> ModelPreset:
    """Returns the preset of "org/model", from the folder of such models.

    Args:
        name: "org/model", or "org/model@revision".
        settings: Whether that is allowed, and the folder.
        nearest: The installed preset that is most like it, in words, "" for none.

    Raises:
        InvalidWorkspaceError: The settings do not allow it, or the folder has no configuration that can be used.
    """
    _check_allowed(name, settings, nearest)
    match = GENERIC_NAME.fullmatch(name)
    if match is None:
        raise _error(f"must be the name of a preset, ORG/MODEL or ORG/MODEL@REVISION, got {shown(name)}")
    if not settings.generic_models_dir:
        raise _error(
            f"'{name}' is not an installed preset, and its configuration is not on this machine: set "
            f"KAITO_GENERIC_MODELS_DIR to a folder with {match['path']}/{_CONFIG}, or name the model's folder with "
            "kaito up --weights"
        )
    return _read(name, Path(settings.generic_models_dir) / match["path"])


def folder_preset(name: str, folder: Path, settings: Settings) -> ModelPreset:
    """Returns the preset of "org/model", whose weights are in `folder`.

    Raises:
        InvalidWorkspaceError: As `local_preset` does.
    """
    _check_allowed(name, settings)
    return _read(name, folder)


def _check_allowed(name: str, settings: Settings, nearest: str = "") -> None:
    if not settings.allow_generic_models:
        hint = f" (the nearest is {nearest})" if nearest else ""
        raise _error(
            f"'{name}' is not an installed preset{hint}, and presets are not made from a model's config.json here: "
            "install a plugin that brings it, or set KAITO_ALLOW_GENERIC_MODELS=true"
        )


def _read(name: str, folder: Path) -> ModelPreset:
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    index = folder / _INDEX
    weights_bytes: object = None
    if sizes:
        weights_bytes = sum(sizes)
    elif index.exists():
        metadata = _json(name, index).get("metadata")
        weights_bytes = metadata.get("total_size") if isinstance(metadata, dict) else None
        if type(weights_bytes) is not int or weights_bytes < 1:
            raise _error(f"'{name}': {index} has no metadata.total_size in bytes, got {shown(weights_bytes)}")
    return generic_preset(name, _json(name, folder / _CONFIG), weights_bytes if type(weights_bytes) is int else None)


def _json(name: str, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _error(f"'{name}' needs the model's {_CONFIG}: {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise _error(f"'{name}': {path} is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise _error(f"'{name}': {path} must hold a mapping, got {shown(document)}")
    return document


def _error(message: str) -> InvalidWorkspaceError:
    return InvalidWorkspaceError([FieldError("inference.preset.name", message)])
