"""Error messages for presets, the same for one in Python and one in a file."""

import difflib
from collections.abc import Iterator

from pydantic import ValidationError

from kaito_core.api import ModelPreset, Weights
from kaito_core.api.messages import describe, field_path

__all__ = ["preset_faults"]

_WEIGHTS = Weights.__name__


def preset_faults(error: ValidationError) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Yields the place of each fault of a `ModelPreset` or `Weights`, and what is wrong there with the field's name."""
    for found in error.errors(include_url=False, include_context=False):
        location = found["loc"]
        if found["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            in_weights = error.title == _WEIGHTS or location[0] == "weights"
            words = _unknown(str(location[-1]), [*(Weights if in_weights else ModelPreset).model_fields])
        else:
            words = describe(found)
        yield location, f"{field_path(location)} {words}".lstrip()


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return "is not a field of a preset" + (f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}")
