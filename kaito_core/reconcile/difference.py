"""From what should exist and what was observed to the actions that make the two the same."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from kaito_core.api import KubeObject, Workspace
from kaito_core.api.serving import SERVING_KEY
from kaito_core.api.workload import SERVING_GENERATION_ANNOTATION
from kaito_core.errors import NotReadyError
from kaito_core.reconcile.actions import Action, AddContainer, Annotate, Apply, Delete
from kaito_core.reconcile.desired import Desired
from kaito_core.reconcile.objects.compare import (
    adapters_at_start,
    differs,
    has_same_pods,
    stamped,
    without_adapters,
)
from kaito_core.reconcile.objects.manifests import CONFIG_MAPS, PODS, STATEFUL_SETS
from kaito_core.reconcile.observed import (
    Observed,
    fetched_adapters,
    has_volumes,
    is_running,
    outdated_pods,
    pull_secrets,
)
from kaito_core.reconcile.pod_problems import adapters_that_block
from kaito_core.reconcile.takeover import WORKLOADS, is_made_by_another

__all__ = ["difference"]


def difference(desired: Desired, observed: Observed) -> tuple[Action, ...]:
    """Returns what to do, in order; nothing where the cluster is as it should be.

    Where nodes are missing that have to be there before pods are, pods that run keep running as they are and are kept
    up to date, also in their number, and nothing else is started or cleared away.

    Raises:
        NotReadyError: An object whose name the Workspace needs belongs to somebody else.
    """
    _refuse_foreign_objects(desired, observed)
    blocking = {folder for pod in observed.pods for folder in adapters_that_block(pod)}
    if blocking:
        desired = replace(desired, objects=(*desired.objects[:-1], without_adapters(desired.workload, blocking)))
    if desired.nodes.reason and desired.workspace.count and not desired.nodes.pods_first:
        kept = desired.objects if _keeps_pods(desired, observed) else desired.objects[:-1]
        return (*_applications(desired, kept, observed), *_live_updates(desired, observed))
    taken = [
        child for child in observed.children if _key(child) == _key(desired.workload) and is_made_by_another(child)
    ]
    # The server-side apply of one workload over another would run both servers in one pod: it comes once that is gone.
    applied = _applications(desired, desired.objects[:-1] if taken else desired.objects, observed, blocking)
    return (
        *_leftovers(desired, observed),
        *(_deletion(desired, child) for child in taken if "deletionTimestamp" not in child["metadata"]),
        *applied,
        *_outdated(desired, observed, applied),
        *_live_updates(desired, observed),
    )


def _key(obj: KubeObject) -> tuple[str, str]:
    return obj["kind"], obj["metadata"]["name"]


def _foreign_owner(workspace: Workspace, child: KubeObject) -> str:
    """Returns who owns an object, "" where it is the Workspace itself."""
    owners = child["metadata"].get("ownerReferences", [])
    if any(owner.get("uid") == workspace.metadata.uid for owner in owners):
        return ""
    return ", ".join(f"{owner.get('kind')} '{owner.get('name')}'" for owner in owners) or "somebody else"


def _refuse_foreign_objects(desired: Desired, observed: Observed) -> None:
    # A workload of the other kind would run with the same label as our pods.
    others = [(kind, desired.workload["metadata"]["name"]) for kind in WORKLOADS if kind != desired.workload["kind"]]
    for kind, name in [*map(_key, desired.objects), *others]:
        child = observed.child(kind, name)
        if child is not None and (owner := _foreign_owner(desired.workspace, child)):
            raise NotReadyError(
                "NameTaken",
                f"{kind} '{name}' belongs to {owner}; rename this Workspace or remove that {kind}",
                retry_after_seconds=60,
            )


def _has_pruned_template(desired: Desired) -> bool:
    """Returns whether the user wrote the pod template, from which the API server may drop fields."""
    return desired.workspace.inference.template is not None


def _keeps_pods(desired: Desired, observed: Observed) -> bool:
    """Returns whether applying the workload ends no pod, surplus ones excepted."""
    live = observed.child(*_key(desired.workload))
    return live is not None and has_same_pods(
        desired.workload["spec"]["template"], live, pruned=_has_pruned_template(desired)
    )


def _applications(
    desired: Desired, objects: Iterable[KubeObject], observed: Observed, blocking: Collection[str] = ()
) -> list[Apply]:
    """Returns what to apply.

    Args:
        blocking: Adapters that keep pods from starting. New pods start without them, as long as the template has them:
            the model is served, and what is wanted of them is added to the pods that run.
    """
    pruned = _has_pruned_template(desired)

    def is_due(manifest: KubeObject) -> bool:
        live = observed.child(*_key(manifest))
        blocked = live is not None and adapters_at_start(live) & set(blocking) - adapters_at_start(manifest)
        return bool(blocked) or differs(manifest, live, pruned=pruned)

    return [Apply(each) for each in map(stamped, objects) if is_due(each)]


def _leftovers(desired: Desired, observed: Observed) -> Iterator[Delete]:
    """Yields the deletions of what another preset or a template needed: its pods would hold GPUs for nothing."""
    wanted = set(map(_key, desired.objects))
    for child in observed.children:
        metadata = child["metadata"]
        ours = not _foreign_owner(desired.workspace, child)
        if _key(child) not in wanted and ours and "deletionTimestamp" not in metadata:
            yield _deletion(desired, child)


def _deletion(desired: Desired, child: KubeObject) -> Delete:
    return Delete(*_key(child), desired.workspace.namespace, child["metadata"].get("uid", ""))


def _outdated(desired: Desired, observed: Observed, applied: Iterable[Apply]) -> Iterator[Delete]:
    """Yields the deletions of pods that a StatefulSet made in an earlier form; it replaces them all at once."""
    kind, name = _key(desired.workload)
    live = observed.child(kind, name)
    if live is None or kind != STATEFUL_SETS.kind or any(action.manifest["kind"] == kind for action in applied):
        return
    for pod in outdated_pods(live, observed.pods):
        metadata = pod["metadata"]
        yield Delete(PODS.kind, metadata["name"], desired.workspace.namespace, metadata.get("uid", ""))


def _live_updates(desired: Desired, observed: Observed) -> Iterator[Action]:
    """Yields what brings running pods up to date without restarting them."""
    config_map = next((obj for obj in desired.objects if obj["kind"] == CONFIG_MAPS.kind), None)
    if config_map is None or observed.child(*_key(desired.workload)) is None:
        return
    workspace = desired.workspace
    version = hashlib.sha256(config_map["data"][SERVING_KEY].encode()).hexdigest()[:16]
    live = observed.child(*_key(config_map))
    had_config = live is not None and live.get("data") != config_map["data"]
    for pod in filter(is_running, observed.pods):
        metadata = pod["metadata"]
        target = (metadata["name"], workspace.namespace, metadata.get("uid", ""))
        have, secrets = fetched_adapters(pod), pull_secrets(pod)
        for entry in desired.adapters:
            folder, step = entry.ref.folder, entry.fetch
            # What a running pod cannot be given comes with the new pod that the template then asks for.
            container = desired.late_containers[folder]
            addable = not step.volumes and secrets.issuperset(step.pull_secrets) and has_volumes(pod, container)
            if folder not in have and addable:
                yield AddContainer(*target, container)
        report = observed.reports.get(metadata["name"])
        stale = had_config or (report is not None and report.generation != workspace.generation)
        if stale and metadata.get("annotations", {}).get(SERVING_GENERATION_ANNOTATION) != version:
            yield Annotate(*target, SERVING_GENERATION_ANNOTATION, version)
