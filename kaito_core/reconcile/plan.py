"""The plan: from what is wanted and what is there to what to do next and what to say about it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from kaito_core.api import KubeObject, NodeState, Workspace
from kaito_core.api.serving import SERVING_KEY
from kaito_core.api.workload import SERVING_GENERATION_ANNOTATION
from kaito_core.errors import BackendError, NotReadyError, WorkspaceError
from kaito_core.reconcile import status as statuses
from kaito_core.reconcile.compare import differs, stamped
from kaito_core.reconcile.desired import runtime_image, serving_config, workload
from kaito_core.reconcile.manifests import PODS, STATEFUL_SETS, preset_manifests, template_manifests
from kaito_core.reconcile.observed import Observed, fetched_adapters, is_running, outdated_pods, pull_secrets
from kaito_core.reconcile.podspec import adapter_container
from kaito_core.reconcile.resolve import Resolved
from kaito_core.reconcile.status import Event, Outlook
from kaito_core.settings import Settings

__all__ = ["Action", "AddContainer", "Annotate", "Apply", "Delete", "Plan", "desired_manifests", "plan", "plan_failure"]


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply a manifest on the server."""

    manifest: KubeObject


@dataclass(frozen=True, slots=True)
class Annotate:
    """Set an annotation of a pod, so that the kubelet refreshes its ConfigMap at once."""

    pod: str
    namespace: str
    uid: str
    annotation: str
    value: str


@dataclass(frozen=True, slots=True)
class AddContainer:
    """Let an ephemeral container fetch an adapter into a running pod."""

    pod: str
    namespace: str
    uid: str
    container: KubeObject


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object of the Workspace's own that it no longer needs, or a pod of it; only the one with `uid`."""

    kind: str
    name: str
    namespace: str
    uid: str


Action = Apply | Annotate | AddContainer | Delete


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    Attributes:
        actions: In order; each is idempotent, and the next pass takes up what a failure left.
        status: The Workspace's status to write, if it differs.
        events: To emit, once each: they stand for changes.
        wake_after_seconds: When to look again if nothing happens first; None: never.
    """

    actions: tuple[Action, ...]
    status: dict[str, Any]
    events: tuple[Event, ...] = ()
    wake_after_seconds: float | None = None


def settled(nodes: NodeState, workspace: Workspace) -> NodeState:
    """Returns the nodes in order of choice: those in use first, then in the provider's order.

    Pods are pinned to the first ones, and a better node that appears is not worth a restart.
    """
    used = workspace.status.get("workerNodes")
    kept = [name for name in used if name in nodes.ready] if isinstance(used, list) else []
    return replace(nodes, ready=tuple(dict.fromkeys((*kept, *nodes.ready))))


def desired_manifests(resolved: Resolved, nodes: NodeState, settings: Settings) -> list[KubeObject]:
    """Returns every object that a Workspace should have, the workload last.

    Raises:
        DoesNotFitError: The machines are too small.
    """
    workspace = resolved.workspace
    names = settled(nodes, workspace).ready[: workspace.resource.count]
    if resolved.preset is None:
        return template_manifests(workspace, names, settings)
    what = workload(resolved, settings, nodes, names)
    return preset_manifests(workspace, what, serving_config(resolved), settings)


def _stranger(workspace: Workspace, child: KubeObject) -> str:
    """Returns who owns an object of a name that the Workspace needs, "" where it is the Workspace itself."""
    owners = child["metadata"].get("ownerReferences", [])
    if any(owner.get("uid") == workspace.metadata.uid for owner in owners):
        return ""
    return ", ".join(f"{owner.get('kind')} '{owner.get('name')}'" for owner in owners) or "somebody else"


def _refuse_strangers(workspace: Workspace, manifests: Sequence[KubeObject], observed: Observed) -> None:
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        child = observed.child(kind, name)
        if child is not None and (owner := _stranger(workspace, child)):
            raise NotReadyError(
                "NameTaken",
                f"{kind} '{name}' belongs to {owner}; rename this Workspace or remove that {kind}",
                retry_after_seconds=60,
            )


def plan(resolved: Resolved, nodes: NodeState, observed: Observed, settings: Settings, now: datetime) -> Plan:
    """Returns what to do for a Workspace that can be served.

    Args:
        resolved: The Workspace with its preset and adapters.
        nodes: What the provider says; where no particular nodes are needed, an empty state.
        observed: What there is.
        settings: Operator settings.
        now: For transition times.

    Raises:
        WorkspaceError: It cannot be served on these machines.
        NotReadyError: Something has to be cleared away first.
    """
    workspace, from_user = resolved.workspace, resolved.preset is None
    nodes = settled(nodes, workspace)
    manifests = desired_manifests(resolved, nodes, settings)
    _refuse_strangers(workspace, manifests, observed)
    workload_kind = manifests[-1]["kind"]
    live = observed.child(workload_kind, workspace.name)
    exists = live is not None
    if nodes.reason:
        # Too few nodes: what runs keeps running as it is, and nothing is started that could not be finished.
        manifests = manifests[:-1]
    actions: list[Action] = [
        Apply(stamped(manifest))
        for manifest in manifests
        if differs(manifest, observed.child(manifest["kind"], manifest["metadata"]["name"]), pruned=from_user)
    ]
    if not nodes.reason:
        actions[:0] = _leftovers(workspace, manifests, observed)
    rolling = any(isinstance(a, Apply) and a.manifest["kind"] == workload_kind for a in actions)
    if live is not None and workload_kind == STATEFUL_SETS.kind and not rolling and not nodes.reason:
        actions += [
            Delete(PODS.kind, pod["metadata"]["name"], workspace.namespace, pod["metadata"].get("uid", ""))
            for pod in outdated_pods(live, observed.pods)
        ]
    if resolved.preset is not None and exists:
        image = runtime_image(resolved.preset, settings)
        actions += _live_updates(resolved, image, manifests[0], observed)
    outlook = statuses.outlook(resolved, nodes, observed, changing=rolling)
    finished = _finish(workspace.status, workspace.generation, actions, outlook, now)
    return replace(finished, events=(*statuses.strength_warnings(workspace), *finished.events))


def _leftovers(workspace: Workspace, manifests: Sequence[KubeObject], observed: Observed) -> list[Action]:
    """Returns the deletions of what another preset or a template needed: its pods would hold GPUs for nothing."""
    wanted = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    return [
        Delete(child["kind"], child["metadata"]["name"], workspace.namespace, child["metadata"].get("uid", ""))
        for child in observed.children
        if (child["kind"], child["metadata"]["name"]) not in wanted
        and not _stranger(workspace, child)
        and "deletionTimestamp" not in child["metadata"]
    ]


def _live_updates(resolved: Resolved, image: str, config_map: KubeObject, observed: Observed) -> list[Action]:
    """Returns what brings running pods up to date without restarting them."""
    workspace = resolved.workspace
    version = hashlib.sha256(config_map["data"][SERVING_KEY].encode()).hexdigest()[:16]
    current = observed.child("ConfigMap", config_map["metadata"]["name"])
    had_config = current is not None and current.get("data") != config_map["data"]
    actions: list[Action] = []
    for pod in filter(is_running, observed.pods):
        metadata = pod["metadata"]
        target = (metadata["name"], workspace.namespace, metadata.get("uid", ""))
        have, secrets = fetched_adapters(pod), pull_secrets(pod)
        for folder, step in resolved.adapters.items():
            # What a running pod cannot be given comes with the new pod that the template then asks for.
            if folder not in have and not step.volumes and secrets.issuperset(step.pull_secrets):
                actions.append(AddContainer(*target, adapter_container(folder, step, image, late=True)))
        report = observed.reports.get(metadata["name"])
        stale = report.generation != workspace.generation if report is not None else had_config
        if stale and metadata.get("annotations", {}).get(SERVING_GENERATION_ANNOTATION) != version:
            actions.append(Annotate(*target, SERVING_GENERATION_ANNOTATION, version))
    return actions


def plan_failure(document: KubeObject, error: WorkspaceError | NotReadyError | BackendError, now: datetime) -> Plan:
    """Returns what to say of a Workspace whose pass ended in an error; what runs is left running.

    Args:
        document: The Workspace as the API has it; it need not be valid.
        error: What ended the pass.
        now: For transition times.
    """
    generation = document["metadata"].get("generation", 0)
    return _finish(document.get("status") or {}, generation, [], statuses.failure(error), now)


def _finish(
    previous: Mapping[str, Any], generation: int, actions: Sequence[Action], outlook: Outlook, now: datetime
) -> Plan:
    status, events = statuses.write(previous, generation, outlook, now)
    return Plan(tuple(actions), status, events, outlook.wake_after_seconds)
