"""The pass: observe one Workspace, let `plan` decide, act, write the status. The same one for every cause."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from kaito_core.api import NODES, KubeObject, NodeProvider, Workspace, parse_workspace
from kaito_core.api.nodes import INSTANCE_TYPE_LABEL
from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.builtin.scheduler import SchedulerProvider
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.controller.logs import logging_about
from kaito_core.controller.metrics import Metrics
from kaito_core.controller.plugin_thread import PluginThread
from kaito_core.controller.records import Key
from kaito_core.controller.resources import CHILDREN, EVENTS
from kaito_core.controller.work import events
from kaito_core.controller.work.execute import execute
from kaito_core.controller.work.finalizers import NodeKeeper, is_held
from kaito_core.controller.work.loop import Outcome
from kaito_core.controller.work.named_objects import read_claim, read_config
from kaito_core.controller.work.neighbour import CHECK_SECONDS, Neighbour, standing_by
from kaito_core.controller.work.observers import Observers
from kaito_core.controller.work.ready_timer import ReadyTimer
from kaito_core.controller.work.replicas import Replicas
from kaito_core.errors import BackendError, ClusterError, NotReadyError, WorkspaceError
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.desired import Desired, desired
from kaito_core.reconcile.nodes.request import node_request, restricts_nodes
from kaito_core.reconcile.nodes.taken_gpus import taken_gpus
from kaito_core.reconcile.objects.manifests import DEPLOYMENTS, PODS, STATEFUL_SETS
from kaito_core.reconcile.observed import Observed, nodes_of
from kaito_core.reconcile.plan import Plan, plan, plan_failure
from kaito_core.reconcile.pod_problems import is_stuck
from kaito_core.reconcile.resolve import Resolved, resolve
from kaito_core.reconcile.takeover import UPSTREAM_FINALIZER, WORKLOADS
from kaito_core.reconcile.transition import has_changed, summary
from kaito_core.settings import Settings

__all__ = ["Reconciler"]

log = logging.getLogger(__name__)

#: Failures in a row that only the log reports; an API that fails now and then is not worth a condition.
_QUIET_FAILURES = 3
#: Pods that hold something of a node.
_PLACED = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"


def _is_temporary(error: BackendError) -> bool:
    """Returns whether an error mostly does not happen again at the next attempt."""
    return isinstance(error, ClusterError) and (error.status in (0, 409, 429) or error.status >= 500)


@dataclass(slots=True)
class Reconciler:
    """Runs passes.

    Attributes:
        settings: Settings of the operator.
        registry: The plugins.
        cluster: Where Workspaces live.
        replicas: What the pods report.
        metrics: Where passes are counted.
        thread: Where hooks are called.
        now: The clock, for transition times.
        timer: Measures how long new Workspaces take.
        observers: The plugins that are told the outcomes.
        neighbour: KAITO's own operator, if it is there.
    """

    settings: Settings
    registry: PluginRegistry
    cluster: KubernetesCluster
    replicas: Replicas
    metrics: Metrics
    thread: PluginThread
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    timer: ReadyTimer = field(init=False)
    observers: Observers = field(init=False)
    neighbour: Neighbour = field(init=False)
    _left: set[Key] = field(init=False, default_factory=set)  # told to be left to KAITO's own operator
    _complaints: dict[Key, str] = field(init=False, default_factory=dict)  # last logged failure, to log it once

    def __post_init__(self) -> None:
        self.timer = ReadyTimer(lambda stage, seconds: self.metrics.ready_seconds.labels(stage).observe(seconds))
        self.observers = Observers(self.registry.reconciled)
        self.neighbour = Neighbour(self.cluster, now=self.now)

    async def run(self, key: Key, streak: int) -> Outcome:
        """Runs a pass for one Workspace.

        Args:
            key: Its namespace and name.
            streak: The number of passes in a row before this one that failed or wrote.
        """
        namespace, name = key
        document = self.cluster.cache.get(WORKSPACES, name, namespace)
        if document is None:
            self.replicas.forget(key)
            self.timer.forget(key)
            self.observers.forget(key)
            self._complaints.pop(key, None)
            return Outcome(gone=True)
        self.timer.begin(key, document)
        with self.metrics.pass_seconds.time(), logging_about(key):
            outcome = await self._pass(document, streak)
        if not outcome.failed:
            self._complaints.pop(key, None)
        label = "failed" if outcome.failed else "wrote" if outcome.acted else "steady"
        self.metrics.passes.labels(label).inc()
        return outcome

    async def _pass(self, document: KubeObject, streak: int) -> Outcome:
        workspace: Workspace | None = None
        failed = False
        try:
            sign = await self.neighbour.sign()
            if "deletionTimestamp" in document["metadata"]:
                return await self._release(document, sign)
            if sign:
                return await self._stand_by(document, sign)
            self._left.clear()
            workspace = parse_workspace(document)
            planned = await self._plan(document, workspace)
            await execute(planned.actions, self.cluster)
            for action in planned.actions:
                self.metrics.actions.labels(type(action).__name__).inc()
            for event in planned.announced:
                await events.emit(self.cluster, document, event, self.now())
            if planned.actions and streak == 0:
                return Outcome(acted=True)  # the next pass follows at once and writes the status
        except (WorkspaceError, NotReadyError) as error:
            planned = plan_failure(document, error, self.now())
        except BackendError as error:
            if _is_temporary(error) and streak < _QUIET_FAILURES:
                self._complain(document, f"{error}; trying again")
                return Outcome(failed=True)
            planned, failed = plan_failure(document, error, self.now()), True
        except Exception as error:  # a bug, here or in a plugin: this Workspace reports it, the others go on
            self._complain(document, f"the pass failed: {error!r}", trace=True)
            fault = BackendError(f"{type(error).__name__}: {error}; the operator's log has more")
            planned, failed = plan_failure(document, fault, self.now()), True
        return await self._conclude(document, workspace, planned, failed=failed)

    async def _conclude(
        self, document: KubeObject, workspace: Workspace | None, planned: Plan, *, failed: bool
    ) -> Outcome:
        """Writes the status where it changed, and returns when the next pass is due."""
        try:
            if has_changed(document.get("status") or {}, planned.status):
                await self.cluster.apply_status(document, planned.status)
                self.timer.reach(_key(document), planned.status["conditions"])
                if not planned.events:
                    state = str(planned.status["state"])
                    log.info(
                        "status: %s, %s", state, summary(planned.status), extra={"action": "Status", "reason": state}
                    )
                for event in planned.events:
                    await events.emit(self.cluster, document, event, self.now())
        except ClusterError as error:
            if error.status == 404:
                self.cluster.cache.remove(WORKSPACES, document, gone=True)
                return Outcome(gone=True)
            self._complain(document, f"the status was not written: {error}")
            return Outcome(failed=True)
        if workspace is not None:
            self.observers.tell(workspace, str(planned.status["state"]))
        return Outcome(planned.wake_after_seconds, failed=failed, acted=bool(planned.actions))

    async def _plan(self, document: KubeObject, workspace: Workspace) -> Plan:
        node_types = self._node_types(workspace)
        config = await read_config(self.cluster, workspace)
        claim = await read_claim(self.cluster, workspace)
        resolved, provider = await self.thread.run(_ask_plugins, workspace, self.registry, node_types, config, claim)
        preset = resolved.preset
        request = node_request(workspace, preset, resolved.pod.get("tolerations", ()))
        cache, place = self.cluster.cache, (workspace.name, workspace.namespace)
        live = cache.get(STATEFUL_SETS if preset is not None and preset.distributed else DEPLOYMENTS, *place)
        pods = await self.cluster.list(PODS, workspace.namespace, {WORKSPACE_LABEL: workspace.name})
        request = replace(request, held_nodes=nodes_of(pods))
        checks = provider is not None and not provider.creates_nodes and not isinstance(provider, SchedulerProvider)
        if checks and request.gpus:
            waits = live is None or not all(pod["spec"].get("nodeName") for pod in pods)
            others = await self._all_pods() if waits else cache.list(PODS)
            request = replace(request, taken=taken_gpus(f"{workspace.namespace}/{workspace.name}", others))
        keeper = NodeKeeper(self.registry, self.cluster, self.metrics.count_provider_error)
        nodes = await keeper.ensure(document, provider, request)
        wanted = desired(resolved, nodes, self.settings, live)
        return plan(wanted, await self._observe(wanted), self.now())

    def _node_types(self, workspace: Workspace) -> frozenset[str]:
        """Returns the machine types of prepared nodes, in lower case; none where the Workspace names no type."""
        if not workspace.resource.instance_type:
            return frozenset()
        labels = (node["metadata"].get("labels") or {} for node in self.cluster.cache.list(NODES))
        return frozenset(
            str(own.get(INSTANCE_TYPE_LABEL, "")).casefold() for own in labels if WORKSPACE_LABEL not in own
        )

    async def _all_pods(self) -> Sequence[KubeObject]:
        """Returns the pods that hold something of a node, of Workspaces or not; without the right to, only the former.

        They are listed while a Workspace waits for nodes and never watched, since there are too many of them.
        """
        try:
            return (await self.cluster.fetch(PODS, fields=_PLACED)).items
        except ClusterError as error:
            if error.status != 403:
                raise
            return self.cluster.cache.list(PODS)

    async def _observe(self, wanted: Desired) -> Observed:
        workspace = wanted.workspace
        labels = {WORKSPACE_LABEL: workspace.name}
        children: list[KubeObject] = []
        for resource in CHILDREN.values():
            children += await self.cluster.list(resource, workspace.namespace, labels)
        # An object with a name that we need may belong to somebody else; without our label it is not watched.
        have = {(child["kind"], child["metadata"]["name"]) for child in children}
        names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted.objects]
        if names[-1] not in have:  # another operator may have made a workload of the other kind, which holds the GPU
            names += [(kind, workspace.name) for kind in WORKLOADS if kind != names[-1][0]]
        for kind, name in names:
            if (kind, name) not in have:
                found = await self.cluster.get(CHILDREN[kind], name, workspace.namespace)
                children += [found] if found is not None else []
        pods = await self.cluster.list(PODS, workspace.namespace, labels)
        reports = await self.replicas.reports(workspace, pods) if workspace.inference.preset is not None else {}
        events = (*await self._warnings(children, pods), *await self._scheduling(wanted, pods))
        return Observed(tuple(children), tuple(pods), reports, events)

    async def _warnings(self, children: Sequence[KubeObject], pods: Sequence[KubeObject]) -> tuple[KubeObject, ...]:
        """Returns the warnings of the namespace where a StatefulSet lacks pods or a kubelet does not start one.

        Only events explain either. They are listed then and never watched, since there are too many of them.
        """
        lacking = [
            child
            for child in children
            if child["kind"] == STATEFUL_SETS.kind and len(pods) < child["spec"].get("replicas", 1)
        ]
        silent = lacking + [pod for pod in pods if is_stuck(pod, self.now())]
        if not silent:
            return ()
        namespace = silent[0]["metadata"]["namespace"]
        return (await self.cluster.fetch(EVENTS, namespace, fields="type=Warning")).items

    async def _scheduling(self, wanted: Desired, pods: Sequence[KubeObject]) -> tuple[KubeObject, ...]:
        """Returns the events about the first pod that waits for a node: an autoscaler says there what it does."""
        waiting = [pod for pod in pods if not pod["spec"].get("nodeName")] if wanted.nodes.pods_first else []
        if not waiting:
            return ()
        about = f"involvedObject.uid={waiting[0]['metadata'].get('uid', '')}"
        return (await self.cluster.fetch(EVENTS, wanted.workspace.namespace, fields=about)).items

    async def _stand_by(self, document: KubeObject, sign: str) -> Outcome:
        """Leaves a Workspace to KAITO's own operator, and says so once."""
        if _key(document) not in self._left:
            self._left.add(_key(document))
            await events.emit(self.cluster, document, standing_by(sign), self.now())
        return Outcome(CHECK_SECONDS)

    async def _release(self, document: KubeObject, sign: str) -> Outcome:
        """Releases the nodes of a Workspace that is being deleted; Kubernetes collects its other objects.

        Args:
            document: The Workspace.
            sign: What shows that KAITO's own operator is there, "" where nothing does: it releases what it made itself.
        """
        keeper = NodeKeeper(self.registry, self.cluster, self.metrics.count_provider_error)
        if not is_held(document):
            if not sign and UPSTREAM_FINALIZER in (document["metadata"].get("finalizers") or ()):
                await keeper.release_taken_over(document)
            return Outcome(CHECK_SECONDS if sign else None)
        warning = await keeper.release(document)
        if warning is not None:
            await events.emit(self.cluster, document, warning, self.now())
        await keeper.let_go(document)
        log.info("its nodes are released", extra={"action": "Release", "reason": "NodesReleased"})
        return Outcome()

    def _complain(self, document: KubeObject, message: str, *, trace: bool = False) -> None:
        """Logs a failure, once for as long as its message stays the same."""
        again = self._complaints.get(_key(document)) == message
        self._complaints[_key(document)] = message
        level = logging.DEBUG if again else logging.ERROR if trace else logging.WARNING
        log.log(level, "%s", message, exc_info=trace, extra={"action": "Pass", "reason": "Failed"})


def _ask_plugins(
    workspace: Workspace,
    registry: PluginRegistry,
    node_types: frozenset[str],
    config: Mapping[str, Any] | None,
    claim: KubeObject | None,
) -> tuple[Resolved, NodeProvider | None]:
    """Returns what plugins know about a Workspace, and its node provider where its nodes matter."""
    resolved = resolve(workspace, registry, config, claim)
    preset = resolved.preset
    restricted = restricts_nodes(workspace) or (preset is not None and preset.gpus > 0)
    return resolved, registry.provider(workspace, node_types) if restricted else None


def _key(document: KubeObject) -> Key:
    return document["metadata"]["namespace"], document["metadata"]["name"]
