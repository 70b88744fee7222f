"""What KAITO's own operator left, and how it is told from ours: names of its objects, and workloads that it made.

A Workspace that it served is served on. Its workload has the name that ours has, and holds the GPU; a merge of the two
would run both servers in one pod. So it is deleted, and ours is made in its place.
"""

from kaito_core.api import KubeObject
from kaito_core.api.workload import MANAGED_BY_LABEL, MANAGER
from kaito_core.reconcile.objects.compare import HASH_ANNOTATION
from kaito_core.reconcile.objects.manifests import DEPLOYMENTS, STATEFUL_SETS

__all__ = ["UPSTREAM_FINALIZER", "UPSTREAM_LEASE", "UPSTREAM_WEBHOOK", "WORKLOADS", "is_made_by_another"]

UPSTREAM_FINALIZER = "workspace.finalizer.kaito.sh"
#: The ValidatingWebhookConfiguration that its chart installs.
UPSTREAM_WEBHOOK = "validation.workspace.kaito.sh"
#: The Lease of its leader election, where that is turned on.
UPSTREAM_LEASE = "ef60f9b0.io"
WORKLOADS = (DEPLOYMENTS.kind, STATEFUL_SETS.kind)


def is_made_by_another(child: KubeObject) -> bool:
    """Returns whether a workload of a Workspace has neither of the marks that ours have."""
    metadata = child["metadata"]
    marked = HASH_ANNOTATION in (metadata.get("annotations") or {})
    return child["kind"] in WORKLOADS and not marked and (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) != MANAGER
