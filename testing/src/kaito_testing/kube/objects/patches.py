"""Merge, JSON and strategic merge patches, as functions on plain objects. Server-side apply is in `fields`."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
from jsonpointer import JsonPointerException

from kaito_testing.kube import errors
from kaito_testing.kube.shape import BuiltinShape, Shape, item_key

__all__ = ["json_patch", "merge_patch", "strategic_patch"]


def merge_patch(target: Any, patch: Any) -> Any:
    """Applies a merge patch (RFC 7386): maps merge, null deletes, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def json_patch(target: Any, operations: Any) -> Any:
    """Applies a JSON patch (RFC 6902).

    Raises:
        ApiError: 422 if an operation cannot be applied, or a test fails.
    """
    try:
        return jsonpatch.apply_patch(target, operations)
    except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, KeyError) as error:
        raise errors.unprocessable() from error


def strategic_patch(target: Any, patch: Any, shape: Shape | None = None) -> Any:
    """Applies a strategic merge patch: lists merge by their keys, and there are `$patch` directives."""
    shape = shape or BuiltinShape(strategic=True)
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, list):
            merged[name] = _patch_list(merged.get(name) or [], value, shape.child(name))
        else:
            merged[name] = strategic_patch(merged.get(name), value, shape.child(name))
    for directive, value in patch.items():
        kind, _, name = directive.partition("/")
        if kind == "$deleteFromPrimitiveList":
            merged[name] = [item for item in merged.get(name, []) if item not in value]
        elif kind == "$setElementOrder" and name in merged:
            merged[name] = _ordered(merged[name], value, shape.child(name))
        elif kind == "$retainKeys":
            merged = {name: item for name, item in merged.items() if name in value}
    return merged


def _patch_list(live: list[Any], patch: list[Any], shape: Shape) -> list[Any]:
    if shape.is_set:
        return live + [item for item in patch if item not in live]
    if not shape.keys:
        return copy.deepcopy(patch)
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if item.get("$patch") != "replace"]
    old = {item_key(item, shape): item for item in live}
    changes = {item_key(item, shape): item for item in patch}
    gone = {key for key, item in changes.items() if item.get("$patch") == "delete"}
    waiting = [key for key in old if key not in changes]
    positions = {key: index for index, key in enumerate(old)}
    merged: list[Any] = []
    for key, item in changes.items():
        # Items that are not in the patch stay before a patched one only if they were before it.
        while waiting and key in positions and positions[waiting[0]] < positions[key]:
            merged.append(old[waiting.pop(0)])
        if key not in gone:
            merged.append(strategic_patch(old.get(key, {}), item, shape.item()))
    return merged + [old[key] for key in waiting]


def _ordered(items: list[Any], order: list[Any], shape: Shape) -> list[Any]:
    wanted = [item_key(item, shape) if isinstance(item, dict) else item for item in order]
    rank = {key: index for index, key in enumerate(wanted)}
    keys = [item_key(item, shape) if isinstance(item, dict) else item for item in items]
    return [item for _, item in sorted(zip(keys, items, strict=True), key=lambda pair: rank.get(pair[0], len(rank)))]
