"""Which installed preset a name of the model hub means, such as "microsoft/Phi-4-mini-instruct". No hub is asked."""

import difflib
from collections.abc import Iterable

from kaito_core.api import ModelPreset
from kaito_core.errors import FieldError, InvalidWorkspaceError

__all__ = ["nearest_repository", "preset_of_repository"]

_FIELD = "inference.preset.name"
_DEFAULT_BRANCH = "main"
_SHORTEST_COMMIT = 7  # characters of a commit that name it, as git writes them


def preset_of_repository(name: str, presets: Iterable[ModelPreset]) -> ModelPreset | None:
    """Returns the preset that serves the weights which a name means, None where none does.

    Args:
        name: "org/model", "org/model@revision" or the model's part alone, in any case.
        presets: The installed presets.

    Raises:
        InvalidWorkspaceError: Several presets serve them, or the one that does serves another revision.
    """
    path, _, revision = name.partition("@")
    serving = [preset for preset in presets if _means(path, preset.weights.repository)]
    if not serving:
        return None
    fitting = [preset for preset in serving if _is_revision(revision, preset.weights.revision)]
    if not fitting:
        pinned = "; ".join(
            f"preset '{preset.name}' serves {preset.weights.repository}@{preset.weights.revision}" for preset in serving
        )
        raise _error(f"asks for revision '{revision}' of {path}, but {pinned}; name the preset, or leave '@' out")
    if len(fitting) > 1:
        names = ", ".join(sorted(preset.name for preset in fitting))
        raise _error(f"'{name}' is served by several presets ({names}); name the one you mean")
    return fitting[0]


def nearest_repository(name: str, presets: Iterable[ModelPreset]) -> str:
    """Returns the installed preset with the most similar weights, such as another version of them; "" for none."""
    by_repository = {preset.weights.repository.casefold(): preset for preset in presets}
    for close in difflib.get_close_matches(name.partition("@")[0].casefold(), by_repository, n=1, cutoff=0.8):
        preset = by_repository[close]
        return f"preset '{preset.name}', which serves {preset.weights.repository}"
    return ""


def _means(path: str, repository: str) -> bool:
    wanted, whole = path.casefold(), repository.casefold()
    return wanted == whole or ("/" not in wanted and wanted == whole.rpartition("/")[2])


def _is_revision(asked: str, pinned: str) -> bool:
    if asked in ("", _DEFAULT_BRANCH, pinned):
        return True
    return len(asked) >= _SHORTEST_COMMIT and pinned.startswith(asked.lower())


def _error(message: str) -> InvalidWorkspaceError:
    return InvalidWorkspaceError([FieldError(_FIELD, message)])
