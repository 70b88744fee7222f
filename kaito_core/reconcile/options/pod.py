"""What a Workspace's pods take along: the operator's defaults, the Workspace's own, and what plugins change.

How it gets into a pod is in `objects.take_along`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from kaito_core.api import ModelPreset, Workspace
from kaito_core.api.quantity import parse_quantity
from kaito_core.api.workspace.pod import LIST_KEYS, UNITED_LISTS, PodChange, PodOptions, merged
from kaito_core.errors import FieldError, PluginFailedError
from kaito_core.plugins import PluginRegistry

__all__ = ["pod_faults", "pod_options"]

_FIELD = "inference.pod"


def pod_options(workspace: Workspace, preset: ModelPreset, registry: PluginRegistry) -> dict[str, Any]:
    """Returns what the pods of a preset take along, as Kubernetes writes it.

    The Workspace's own counts before the defaults, and a plugin's change before both.

    Raises:
        InvalidWorkspaceError: A plugin objects.
        PluginFailedError: A plugin fails, or two plugins change the same field differently.
    """
    layers = [registry.settings.pod_defaults, workspace.inference.pod or PodOptions()]
    options = merged(layers)
    changes = registry.pod_changes(workspace, preset, options)
    _refuse_conflicts(changes)
    return merged([*layers, *(change for _, change in changes)]) if changes else options


def _refuse_conflicts(changes: Sequence[tuple[str, PodChange]]) -> None:
    for (first, one), (second, other) in combinations([(plugin, change.given()) for plugin, change in changes], 2):
        for path, here, there in _differences("", one, other):
            raise PluginFailedError(
                f"plugins '{first}' and '{second}' change {_FIELD}{path} of the pods differently: {here!r} and "
                f"{there!r}; deny one with KAITO_PLUGINS_DENY, or change one",
                reason="PluginConflict",
            )


def _differences(path: str, one: Any, other: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields what two values say differently, as path and both values; what only one of them has is no difference."""
    if name in LIST_KEYS or name == "sidecars":
        key = LIST_KEYS.get(name, "name")
        entries, others = ({entry.get(key): entry for entry in listed} for listed in (one, other))
        for entry in entries.keys() & others.keys():
            if entries[entry] != others[entry]:
                yield f"{path}[{entry}]", entries[entry], others[entry]
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted(one.keys() & other.keys()):
            step = f".{key}" if key.isidentifier() else f"[{key}]"
            yield from _differences(f"{path}{step}", one[key], other[key], key)
    elif name not in UNITED_LISTS and one != other:
        yield path, one, other


def pod_faults(options: Mapping[str, Any], requests: Mapping[str, str]) -> Iterator[FieldError]:
    """Yields what is wrong with options as a whole, defaults included.

    Args:
        options: What pods take along.
        requests: What the server's container asks for without them.
    """
    volumes = {volume["name"] for volume in options.get("volumes", ())}
    for index, mount in enumerate(options.get("volumeMounts", ())):
        if mount["name"] not in volumes:
            known = ", ".join(sorted(volumes)) or "none"
            yield FieldError(
                f"{_FIELD}.volumeMounts[{index}].name",
                f"must be the name of an entry of {_FIELD}.volumes, got '{mount['name']}' (known: {known})",
            )
    asked = options.get("resources", {})
    reserved = {**requests, **asked.get("requests", {})}
    for name, limit in asked.get("limits", {}).items():
        if name in reserved and parse_quantity(limit) < parse_quantity(reserved[name]):
            yield FieldError(
                f"{_FIELD}.resources.limits[{name}]",
                f"must not be below the request, which is {reserved[name]}, got '{limit}'; raise it, or lower "
                f"{_FIELD}.resources.requests",
            )
