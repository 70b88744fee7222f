"""The resource types that the operator writes besides Workspaces, and the names that it gives its own objects.

Importable without the operator's extra packages: `install/` makes its rules from it.
"""

from collections.abc import Mapping

from kaito_core.api import ResourceType
from kaito_core.reconcile.objects.manifests import CONFIG_MAPS, DEPLOYMENTS, DISRUPTION_BUDGETS, SERVICES, STATEFUL_SETS

__all__ = ["CHILDREN", "EVENTS", "LEASES", "LEASE_NAME"]

#: The objects that a Workspace is served by, by kind; pods are made from them by Kubernetes itself.
CHILDREN: Mapping[str, ResourceType] = {
    resource.kind: resource for resource in (CONFIG_MAPS, SERVICES, DISRUPTION_BUDGETS, DEPLOYMENTS, STATEFUL_SETS)
}
EVENTS = ResourceType("", "v1", "events", "Event")
LEASES = ResourceType("coordination.k8s.io", "v1", "leases", "Lease")
LEASE_NAME = "kaito-operator"
