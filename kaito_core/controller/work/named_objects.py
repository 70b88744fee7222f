"""Objects of the user's that a Workspace names: serving options and the claim for weights. Read in each pass."""

from collections.abc import Mapping
from typing import Any

from kaito_core.api import KubeObject, Workspace
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.errors import NotReadyError
from kaito_core.reconcile.objects.manifests import CLAIMS, CONFIG_MAPS

__all__ = ["read_claim", "read_config"]

_RETRY_SECONDS = 30.0


async def read_config(cluster: KubernetesCluster, workspace: Workspace) -> Mapping[str, Any] | None:
    """Returns the data of the ConfigMap that `inference.config` names, None for none.

    Raises:
        NotReadyError: It does not exist.
        ClusterError: The API failed.
    """
    name = workspace.inference.config
    if not name or workspace.inference.preset is None:
        return None
    found = await cluster.get(CONFIG_MAPS, name, workspace.namespace)
    if found is None:
        raise NotReadyError(
            "ConfigMissing",
            f"inference.config names ConfigMap '{name}', which does not exist in namespace '{workspace.namespace}'; "
            "create it, or take inference.config out",
            retry_after_seconds=_RETRY_SECONDS,
        )
    data: Mapping[str, Any] = found.get("data") or {}
    return data


async def read_claim(cluster: KubernetesCluster, workspace: Workspace) -> KubeObject | None:
    """Returns the PersistentVolumeClaim that `inference.weights` names, None for none.

    Raises:
        NotReadyError: It does not exist.
        ClusterError: The API failed.
    """
    asked = workspace.inference.weights
    if asked is None or not asked.claim:
        return None
    found = await cluster.get(CLAIMS, asked.claim, workspace.namespace)
    if found is None:
        raise NotReadyError(
            "ClaimMissing",
            f"inference.weights.claim names PersistentVolumeClaim '{asked.claim}', which does not exist in namespace "
            f"'{workspace.namespace}'; create it, or take inference.weights out",
            retry_after_seconds=_RETRY_SECONDS,
        )
    return found
