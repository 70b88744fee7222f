"""Executes what was planned: one API call for each action, all of which may be repeated."""

import logging
from collections.abc import Iterable, Mapping

from kaito_core.api import ResourceType
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.errors import ClusterError
from kaito_core.reconcile.manifests import CONFIG_MAPS, DEPLOYMENTS, PODS, SERVICES, STATEFUL_SETS
from kaito_core.reconcile.plan import Action, AddContainer, Annotate, Apply, Delete

__all__ = ["CHILDREN", "execute"]

log = logging.getLogger(__name__)

#: What a Workspace is made of, by kind.
CHILDREN: Mapping[str, ResourceType] = {
    resource.kind: resource for resource in (CONFIG_MAPS, SERVICES, DEPLOYMENTS, STATEFUL_SETS)
}


async def execute(actions: Iterable[Action], cluster: KubernetesCluster) -> None:
    """Carries out actions in their order and logs each.

    Raises:
        ClusterError: One failed; those after it were not tried.
    """
    for action in actions:
        log.info("%s", _words(action))
        await _do(action, cluster)


async def _do(action: Action, cluster: KubernetesCluster) -> None:
    if isinstance(action, Apply):
        await cluster.apply(action.manifest)
        return
    if isinstance(action, Delete):
        await cluster.delete(CHILDREN[action.kind], action.name, action.namespace, uid=action.uid)
        return
    try:
        if isinstance(action, Annotate):
            annotations = {action.annotation: action.value}
            await cluster.annotate(PODS, action.pod, action.namespace, action.uid, annotations)
        else:
            await cluster.add_ephemeral_container(PODS, action.pod, action.namespace, action.uid, action.container)
    except ClusterError as error:
        if error.status != 404:  # a pod that is gone needs nothing; its successor starts with what is wanted
            raise


def _words(action: Action) -> str:
    if isinstance(action, Apply):
        metadata = action.manifest["metadata"]
        return f"{metadata['namespace']}/{metadata['name']}: applying the {action.manifest['kind']}"
    if isinstance(action, Delete):
        return f"{action.namespace}/{action.name}: deleting the {action.kind}, which is not needed any more"
    if isinstance(action, AddContainer):
        return f"{action.namespace}/{action.pod}: adding the container {action.container['name']}"
    return f"{action.namespace}/{action.pod}: telling the pod that its configuration has changed"
