"""Removing the operator from a cluster: first its Workspaces, since only it can give their machines back."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workload import MANAGED_BY_LABEL
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.controller.install.manifests import INSTALLED_BY, NAME, cluster_name
from kaito_core.controller.resources import LEASE_NAME, LEASES
from kaito_core.controller.verbs import Verbs
from kaito_core.controller.webhook.objects import SECRETS, WEBHOOK_NAME, WEBHOOKS, configuration_name
from kaito_core.errors import ClusterError, ConfigError
from kaito_core.reconcile.objects.manifests import DEPLOYMENTS, DISRUPTION_BUDGETS, SERVICES
from kaito_core.settings import Settings

__all__ = ["Installed", "find_installed", "remove_operator", "remove_workspaces"]

_RBAC = "rbac.authorization.k8s.io"
_ROLES = ResourceType(_RBAC, "v1", "roles", "Role")
_ROLE_BINDINGS = ResourceType(_RBAC, "v1", "rolebindings", "RoleBinding")
_CLUSTER_ROLES = ResourceType(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False)
_CLUSTER_ROLE_BINDINGS = ResourceType(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
_PRIORITY_CLASSES = ResourceType("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
_SERVICE_ACCOUNTS = ResourceType("", "v1", "serviceaccounts", "ServiceAccount")
_CRDS = ResourceType(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
_CRD_NAME = f"{WORKSPACES.plural}.{WORKSPACES.group}"

_RESTORE = "apply what kaito install prints, then run the command again"


@dataclass(frozen=True, slots=True)
class Installed:
    """An operator on a cluster.

    Attributes:
        namespace: Its namespace.
        running: Whether a replica of it is ready.
        others: Namespaces of the cluster's other operators.
        served: Namespaces that it serves; none stands for all.
        workspaces: The Workspaces that only it serves.
    """

    namespace: str
    running: bool
    others: tuple[str, ...]
    served: tuple[str, ...]
    workspaces: tuple[KubeObject, ...]


async def find_installed(cluster: Verbs, namespace: str) -> Installed:
    """Returns what an operator's namespace holds, read from the cluster.

    Raises:
        ConfigError: No operator is installed there.
        ClusterError: The cluster does not answer, or does not let this user read.
    """
    deployments = await cluster.list(DEPLOYMENTS, labels={MANAGED_BY_LABEL: INSTALLED_BY})
    served = {item["metadata"]["namespace"]: _served(item) for item in deployments}
    others = tuple(sorted(served.keys() - {namespace}))
    if namespace not in served and await cluster.get(_CLUSTER_ROLES, cluster_name(namespace)) is None:
        where = ", ".join(f"'{other}'" for other in others) or "no namespace of this cluster"
        raise ConfigError(f"--namespace: kaito install has put no operator into '{namespace}', but into {where}")
    own = served.get(namespace, ()) or await _granted(cluster, namespace)
    mine = [
        item
        for item in await cluster.list(WORKSPACES)
        if _serves(own, item) and not any(_serves(served[other], item) for other in others)
    ]
    return Installed(
        namespace,
        running=any(
            item["metadata"]["namespace"] == namespace and (item.get("status") or {}).get("readyReplicas")
            for item in deployments
        ),
        others=others,
        served=own,
        workspaces=tuple(mine),
    )


async def remove_workspaces(
    cluster: Verbs,
    found: Installed,
    report: Callable[[str], None],
    *,
    timeout_seconds: float,
    poll_seconds: float = 1.0,
) -> None:
    """Deletes the Workspaces, and returns when they and their machines are gone.

    Raises:
        ClusterError: Workspaces remain after `timeout_seconds`; the message names them and what holds them.
    """
    for item in found.workspaces:
        metadata = item["metadata"]
        await cluster.delete(WORKSPACES, metadata["name"], metadata["namespace"], uid=metadata["uid"])
    uids = {item["metadata"]["uid"] for item in found.workspaces}
    ends, told = time.monotonic() + timeout_seconds, ""
    while left := [item for item in await cluster.list(WORKSPACES) if item["metadata"]["uid"] in uids]:
        words = ", ".join(map(_held, left))
        if time.monotonic() >= ends:
            advice = "look at its status, and run the command again"
            if not found.running:
                advice = f"no operator is ready in namespace '{found.namespace}' to give its machines back: {_RESTORE}"
            raise ClusterError(f"after {timeout_seconds:g} seconds there is still {words}: {advice}")
        if words != told:
            report(f"waiting for {words}")
            told = words
        await asyncio.sleep(poll_seconds)


async def remove_operator(cluster: Verbs, found: Installed, report: Callable[[str], None]) -> None:
    """Deletes what `kaito install` has made, the namespace excepted; what is gone already is no error.

    The CRD stays while the cluster has a Workspace or another operator.
    """

    async def delete(resource: ResourceType, name: str, namespace: str = "") -> None:
        if await cluster.delete(resource, name, namespace):
            report(f"deleted {resource.kind} {f'{namespace}/{name}' if namespace else name}")

    for resource, name, namespace in _objects(found.namespace, found.served):
        await delete(resource, name, namespace)
    if found.others:
        report(f"kept the CRD {_CRD_NAME}: the operator in namespace '{found.others[0]}' needs it")
    elif await cluster.list(WORKSPACES):
        report(f"kept the CRD {_CRD_NAME}: there are Workspaces")
    else:
        await delete(_CRDS, _CRD_NAME)
    # Last: by it an interrupted run is found again.
    await delete(_CLUSTER_ROLES, cluster_name(found.namespace))


def _objects(namespace: str, served: Iterable[str]) -> Sequence[tuple[ResourceType, str, str]]:
    """Returns type, name and namespace of all that an installation can hold, in the order of deletion."""
    everywhere = cluster_name(namespace)
    return [
        (WEBHOOKS, configuration_name(namespace), ""),  # first: it must not ask an operator that is going away
        (DEPLOYMENTS, NAME, namespace),
        (DISRUPTION_BUDGETS, NAME, namespace),
        (SERVICES, NAME, namespace),
        (SERVICES, WEBHOOK_NAME, namespace),
        (SECRETS, WEBHOOK_NAME, namespace),
        (LEASES, LEASE_NAME, namespace),
        *((resource, everywhere, name) for name in served for resource in (_ROLE_BINDINGS, _ROLES)),
        (_ROLE_BINDINGS, NAME, namespace),
        (_ROLES, NAME, namespace),
        (_CLUSTER_ROLE_BINDINGS, everywhere, ""),
        (_PRIORITY_CLASSES, everywhere, ""),
        (_SERVICE_ACCOUNTS, NAME, namespace),
    ]


def _served(deployment: KubeObject) -> tuple[str, ...]:
    """Returns the namespaces that a Deployment's operator serves, none for all."""
    (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
    value = next((item.get("value", "") for item in container.get("env", ()) if item["name"] == "KAITO_NAMESPACES"), "")
    return Settings.from_env({"KAITO_NAMESPACES": value}).namespaces


async def _granted(cluster: Verbs, namespace: str) -> tuple[str, ...]:
    """Returns the namespaces in which an operator has rights of its own, for one whose Deployment is gone."""
    bindings = await cluster.list(_ROLE_BINDINGS, labels={MANAGED_BY_LABEL: INSTALLED_BY})
    return tuple(
        item["metadata"]["namespace"] for item in bindings if item["metadata"]["name"] == cluster_name(namespace)
    )


def _serves(namespaces: Sequence[str], workspace: KubeObject) -> bool:
    return not namespaces or workspace["metadata"]["namespace"] in namespaces


def _held(workspace: KubeObject) -> str:
    metadata = workspace["metadata"]
    words = f"Workspace {metadata['namespace']}/{metadata['name']}"
    finalizers = ", ".join(metadata.get("finalizers") or ())
    return f"{words} (finalizers: {finalizers})" if finalizers else words
