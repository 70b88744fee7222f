"""Executes the actions of a plan: one API call for each, all of which can be repeated."""

from collections.abc import Iterable

from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.controller.resources import CHILDREN
from kaito_core.errors import ClusterError
from kaito_core.reconcile.actions import Action, Annotate, Apply, Delete
from kaito_core.reconcile.objects.manifests import PODS

__all__ = ["execute"]


async def execute(actions: Iterable[Action], cluster: KubernetesCluster) -> None:
    """Executes actions in their order.

    Raises:
        ClusterError: An action failed; those after it were not executed.
    """
    for action in actions:
        await _do(action, cluster)


async def _do(action: Action, cluster: KubernetesCluster) -> None:
    if isinstance(action, Apply):
        await cluster.apply(action.manifest)
        return
    if isinstance(action, Delete):
        resource = PODS if action.kind == PODS.kind else CHILDREN[action.kind]
        await cluster.delete(resource, action.name, action.namespace, uid=action.uid)
        return
    try:
        if isinstance(action, Annotate):
            annotations = {action.annotation: action.value}
            await cluster.annotate(PODS, action.pod, action.namespace, action.uid, annotations)
        else:
            await cluster.add_ephemeral_container(PODS, action.pod, action.namespace, action.uid, action.container)
    except ClusterError as error:
        if error.status != 404:  # the pod is gone, and its successor starts with what is wanted
            raise
