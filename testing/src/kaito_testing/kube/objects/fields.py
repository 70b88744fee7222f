"""Field ownership and server-side apply, as functions on plain objects. The owners are read from managedFields.

A path is a tuple of the API's own path elements ("f:data", 'k:{"name":"c"}', 'v:"x"').
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kaito_testing.kube import errors
from kaito_testing.kube.shape import Shape, item_key

__all__ = ["Writer", "apply", "flatten", "track"]

Path = tuple[str, ...]
Object = dict[str, Any]

_MEMBER = object()  # value of a keyed list item itself, without its fields
_MISSING = object()
#: Set by the server, or identifying the object: these have no owner.
_UNOWNED_META = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
)


@dataclass(frozen=True, slots=True)
class Writer:
    """A field manager, how it writes ("Apply" or "Update"), and through which subresource."""

    manager: str
    operation: str
    subresource: str = ""


def flatten(value: Any, shape: Shape, path: Path = ()) -> dict[Path, Any]:
    """The leaves of a value by path. Values that merge as a whole are leaves, and so are empty containers."""
    leaves: dict[Path, Any] = {}
    if isinstance(value, dict) and value and not shape.atomic:
        for name, sub in value.items():
            leaves.update(flatten(sub, shape.child(name), (*path, f"f:{name}")))
    elif isinstance(value, list) and value and (shape.keys or shape.is_set):
        for item in value:
            element = item_key(item, shape)
            if element is None:
                return {path: value}
            leaves[(*path, element)] = _MEMBER
            if isinstance(item, dict):
                leaves.update(flatten(item, shape.item(), (*path, element)))
    else:
        leaves[path] = value
    return leaves


def _owned(obj: Mapping[str, Any], shape: Shape) -> dict[Path, Any]:
    """The leaves of an object that can have owners."""
    body = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind")}
    meta = {name: value for name, value in body.pop("metadata", {}).items() if name not in _UNOWNED_META}
    return flatten({**body, **({"metadata": meta} if meta else {})}, shape) if body or meta else {}


def _merge(live: Any, config: Any, shape: Shape) -> Any:
    """The live value with the applied one merged into it."""
    if isinstance(live, dict) and isinstance(config, dict) and not shape.atomic:
        merged = dict(live)
        for name, value in config.items():
            merged[name] = _merge(live[name], value, shape.child(name)) if name in live else value
        return merged
    if isinstance(live, list) and isinstance(config, list) and (shape.keys or shape.is_set):
        return _merge_items(live, config, shape)
    return config


def _merge_items(live: list[Any], config: list[Any], shape: Shape) -> list[Any]:
    """Merges keyed items: those of the applied list in its order, the others where they were."""
    left = {item_key(item, shape): item for item in live}
    right = {item_key(item, shape): item for item in config}
    left_keys, right_keys = list(left), list(right)
    merged: list[Any] = []
    while left_keys or right_keys:
        if left_keys and left_keys[0] not in right:
            merged.append(left[left_keys.pop(0)])
        elif not right_keys:
            left_keys.pop(0)  # it is already where the applied list has it
        else:
            key = right_keys.pop(0)
            merged.append(_merge(left[key], right[key], shape.item()) if key in left else right[key])
            if left_keys and left_keys[0] == key:
                left_keys.pop(0)
    return merged


def _without(value: Any, paths: set[Path], shape: Shape) -> Any:
    """The value without the paths, and without the containers that this empties."""
    if () in paths:
        return _MISSING
    below: dict[str, set[Path]] = {}
    for path in paths:
        below.setdefault(path[0], set()).add(path[1:])
    if isinstance(value, dict):
        kept = {
            name: _without(sub, below[f"f:{name}"], shape.child(name)) if f"f:{name}" in below else sub
            for name, sub in value.items()
        }
        kept = {name: sub for name, sub in kept.items() if sub is not _MISSING}
        return kept if kept or not value else _MISSING
    if isinstance(value, list):
        items = []
        for item in value:
            element = item_key(item, shape)
            left = _without(item, below[element], shape.item()) if element in below else item
            if isinstance(left, dict):  # an item that others own too keeps its keys
                left = {key: item[key] for key in shape.keys if key in item} | left
            if left is not _MISSING:
                items.append(left)
        return items if items or not value else _MISSING
    return value


def _to_v1(paths: Iterable[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    ordered = sorted(paths)
    for path in ordered:
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _tidy(tree)


def _tidy(node: dict[str, Any]) -> dict[str, Any]:
    """Keeps the dot only for a path that is owned itself and has children."""
    if set(node) == {"."}:
        return {}
    return {key: _tidy(sub) if key != "." else {} for key, sub in node.items()}


def _from_v1(node: Mapping[str, Any], path: Path = ()) -> set[Path]:
    if not node:
        return {path} if path else set()
    paths: set[Path] = set()
    for key, sub in node.items():
        paths |= {path} if key == "." else _from_v1(sub, (*path, key))
    return paths


def _read(obj: Mapping[str, Any]) -> dict[Writer, tuple[set[Path], Object]]:
    """The paths and the entry of each writer."""
    return {
        Writer(entry["manager"], entry["operation"], entry.get("subresource", "")): (
            _from_v1(entry.get("fieldsV1", {})),
            entry,
        )
        for entry in obj.get("metadata", {}).get("managedFields") or ()
    }


def _write(
    obj: Object,
    before: Mapping[Writer, tuple[set[Path], Object]],
    after: Mapping[Writer, set[Path]],
    now: str,
    api_version: str,
) -> Object:
    """The object with new owners. Unchanged entries keep their time, so that an apply without effect writes nothing."""
    entries: list[Object] = []
    for writer, paths in after.items():
        if not paths:
            continue
        if writer in before and before[writer][0] == paths:
            entries.append(before[writer][1])
            continue
        entry = {
            "manager": writer.manager,
            "operation": writer.operation,
            "apiVersion": api_version,
            "time": now,
            "fieldsType": "FieldsV1",
            "fieldsV1": _to_v1(paths),
        }
        entries.append(entry | ({"subresource": writer.subresource} if writer.subresource else {}))
    meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": {**meta, **({"managedFields": entries} if entries else {})}}


def track(old: Object | None, new: Object, shape: Shape, writer: Writer, now: str) -> Object:
    """The object with its owners after a create, update or patch: the writer owns what it changed."""
    before = _read(old or {})
    was, is_ = _owned(old or {}, shape), _owned(new, shape)
    changed = {path for path, value in is_.items() if was.get(path, _MISSING) != value}
    removed = set(was) - set(is_)
    after = {owner: paths - removed - (changed if owner != writer else set()) for owner, (paths, _) in before.items()}
    if changed:
        after[writer] = after.get(writer, set()) | changed
    return _write(new, before, after, now, new["apiVersion"])


def apply(live: Object, config: Object, shape: Shape, writer: Writer, *, force: bool, now: str) -> Object:
    """Applies a configuration (server-side apply) to an object.

    Args:
        live: The stored object; for a new one an object without fields.
        config: What the manager wants, without nulls.
        shape: How the values of the type merge.
        writer: The manager, with the operation "Apply".
        force: Whether to take fields from other managers instead of raising.
        now: Time of changed entries.

    Raises:
        ApiError: 409 if other managers own fields whose values would change.
    """
    before = _read(live)
    body = {name: value for name, value in config.items() if name not in ("metadata", "apiVersion", "kind")}
    meta = {name: value for name, value in config.get("metadata", {}).items() if name not in _UNOWNED_META}
    merged = _merge(live, {**body, **({"metadata": meta} if meta else {})}, shape)
    was, is_, wanted = _owned(live, shape), _owned(merged, shape), set(_owned(config, shape))
    changed = {path for path in wanted if was.get(path, _MISSING) != is_.get(path, _MISSING)}
    after = {owner: set(paths) for owner, (paths, _) in before.items()}
    conflicts: list[tuple[str, str]] = []
    for owner, paths in after.items():
        if owner == writer:
            continue
        taken = paths & changed
        conflicts += [(owner.manager, dotted(path)) for path in sorted(taken)]
        paths -= taken
    if conflicts and not force:
        raise errors.apply_conflicts(conflicts)
    others = [path for owner, paths in after.items() if owner != writer for path in paths]
    held = wanted.union(others)
    prefixes = {path[:length] for path in held for length in range(1, len(path) + 1)}
    dropped = before[writer][0] - wanted - prefixes if writer in before else set()
    if dropped:
        merged = _without(merged, dropped, shape)
    after[writer] = wanted
    return _write(merged, before, after, now, config["apiVersion"])


def dotted(path: Path) -> str:
    """A path as people write it, e.g. '.spec.containers[name="c"].image'."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            text += "[" + rest.strip("{}").replace('":', "=").replace('"', "", 1) + "]"
        else:
            text += f"[={rest}]"
    return text
