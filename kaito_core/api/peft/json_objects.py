"""JSON objects in the files of adapters: duplicate keys are errors, since parsers differ in which value they keep."""

from typing import Any

__all__ = ["without_repeats"]

_LONGEST_SHOWN = 80


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the object of some pairs; an `object_pairs_hook` of `json`.

    Raises:
        ValueError: Two have the same key.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {twice[:_LONGEST_SHOWN]!r}")
    return found
