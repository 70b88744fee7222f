"""Weights that stay when pods end: on which volume, in which folder, and whether the volume can hold them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from kaito_core.api import KubeObject, ModelPreset, Workspace
from kaito_core.api.quantity import parse_gib
from kaito_core.api.workload import KeptVolume
from kaito_core.errors import FieldError, InvalidClaimError, InvalidWorkspaceError
from kaito_core.reconcile.objects.rollout import rollout_strategy
from kaito_core.settings import Settings

__all__ = ["kept_volume"]

_FIELD = "inference.weights"
_READ_ONLY = "ReadOnlyMany"
_SHARED = frozenset({"ReadWriteMany", _READ_ONLY})
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def kept_volume(
    workspace: Workspace, preset: ModelPreset, settings: Settings, claim: KubeObject | None = None
) -> KeptVolume | None:
    """Returns the volume that keeps the weights of a preset, None where they go with the pods.

    Args:
        workspace: The Workspace.
        preset: Its preset.
        settings: Which folders of nodes are allowed, and how pods are replaced.
        claim: The PersistentVolumeClaim that the Workspace names, None where it is not at hand.

    Raises:
        InvalidWorkspaceError: The folder is not allowed, or the weights are in an image.
        InvalidClaimError: The claim cannot hold them, or not for all pods.
    """
    asked, spec = workspace.inference.weights, workspace.inference.preset
    if asked is None or spec is None:
        return None
    if spec.preset_options.image:
        fault = "must be left out where presetOptions.image has the weights, which nodes keep as they keep images"
        raise InvalidWorkspaceError([FieldError(_FIELD, fault)])
    folder = f"{_safe(preset.weights.repository)}/{_safe(preset.weights.revision)}"
    if asked.host_path:
        _refuse_other_folders(asked.host_path, settings)
        return KeptVolume({"hostPath": {"path": asked.host_path, "type": "DirectoryOrCreate"}}, folder)
    if claim is not None and (faults := list(_claim_faults(claim, workspace, preset, settings))):
        raise InvalidClaimError([FieldError(f"{_FIELD}.claim", fault) for fault in faults])
    source: dict[str, Any] = {"claimName": asked.claim}
    if claim is not None and set(_modes(claim)) == {_READ_ONLY}:
        source["readOnly"] = True
    return KeptVolume({"persistentVolumeClaim": source}, folder)


def _safe(text: str) -> str:
    return _UNSAFE.sub("--", text).strip(".") or "-"


def _refuse_other_folders(path: str, settings: Settings) -> None:
    allowed = settings.weights_host_paths
    if not any(PurePosixPath(path).is_relative_to(folder) for folder in allowed):
        known = f"only below {', '.join(allowed)}" if allowed else "none is"
        fault = f"is not allowed by the operator's setting KAITO_WEIGHTS_HOST_PATHS ({known}), got '{path}'"
        raise InvalidWorkspaceError([FieldError(f"{_FIELD}.hostPath", fault)])


def _modes(claim: KubeObject) -> list[str]:
    return claim.get("status", {}).get("accessModes") or claim.get("spec", {}).get("accessModes") or []


def _claim_faults(claim: KubeObject, workspace: Workspace, preset: ModelPreset, settings: Settings) -> Iterator[str]:
    name = f"names PersistentVolumeClaim '{claim['metadata']['name']}', which"
    spec, status = claim.get("spec", {}), claim.get("status", {})
    if "deletionTimestamp" in claim["metadata"]:
        yield f"{name} is being deleted"
    if status.get("phase") == "Lost":
        yield f"{name} has lost its volume"
    if spec.get("volumeMode") == "Block":
        yield f"{name} is a block device; weights need a file system"
    if not _SHARED.intersection(_modes(claim)):
        words = f"{name} can be mounted by one node only ({', '.join(_modes(claim)) or 'it has no access mode'})"
        help_ = "use a claim that is ReadWriteMany"
        surge = rollout_strategy(workspace, settings).get("rollingUpdate", {}).get("maxSurge", 0)
        if workspace.count > 1:
            yield f"{words}, and there are {workspace.count} pods; {help_}, inference.weights.hostPath or one pod"
        elif not preset.distributed and surge not in (0, "0%"):
            yield f"{words}, and a rolling update starts a second pod; {help_}, or a surge of 0"
    capacity = _capacity(status.get("capacity") or spec.get("resources", {}).get("requests") or {})
    if capacity is not None and capacity < preset.weights.size_gib:
        yield (
            f"{name} holds {capacity:g} GiB, and the weights of preset '{preset.name}' take "
            f"{preset.weights.size_gib:g} GiB; make it larger"
        )


def _capacity(amounts: Mapping[str, Any]) -> float | None:
    try:
        return parse_gib(amounts["storage"])
    except (KeyError, ValueError):
        return None
