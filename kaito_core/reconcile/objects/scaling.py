"""Who decides how many pods a Deployment has: the Workspace, or whoever has scaled the Deployment itself since.

An autoscaler should scale the Workspace. One that scales the Deployment is not fought: its number stays until the
Workspace asks for another one.
"""

from typing import Any

from kaito_core.api import KubeObject
from kaito_core.reconcile.objects.manifests import DEPLOYMENTS

__all__ = ["SCALE", "with_replicas"]

SCALE = "scale"  #: the subresource, as entries of metadata.managedFields name it
#: The number that the Workspace asked for when the Deployment was applied last.
_ASKED_ANNOTATION = "kaito.sh/replicas"


def with_replicas(manifest: KubeObject, live: KubeObject | None) -> tuple[KubeObject, int]:
    """Returns a workload that says how many pods it has only where that is ours to say, and how many there will be.

    Args:
        manifest: The workload as the Workspace has it.
        live: The one that there is, None for none.
    """
    if manifest["kind"] != DEPLOYMENTS.kind:
        return manifest, manifest["spec"]["replicas"]
    asked = manifest["spec"]["replicas"]
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), _ASKED_ANNOTATION: str(asked)}
    marked = {**manifest, "metadata": {**metadata, "annotations": annotations}}
    if live is None or not _is_scaled_by_others(live, asked):
        return marked, asked
    spec = {key: value for key, value in manifest["spec"].items() if key != "replicas"}
    return {**marked, "spec": spec}, live["spec"].get("replicas", 1)


def _is_scaled_by_others(live: KubeObject, asked: int) -> bool:
    metadata = live["metadata"]
    if (metadata.get("annotations") or {}).get(_ASKED_ANNOTATION) != str(asked):
        return False
    return any(
        entry.get("subresource") == SCALE and "f:replicas" in _fields(entry).get("f:spec", {})
        for entry in metadata.get("managedFields") or ()
    )


def _fields(entry: KubeObject) -> dict[str, Any]:
    fields: dict[str, Any] = entry.get("fieldsV1") or {}
    return fields
