"""The operator as a process: its parts put together, its start and its end."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Sequence

import kopf

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.controller.cluster import KubernetesCluster, connect
from kaito_core.controller.health import HealthServer
from kaito_core.controller.leader import Election, stand_by
from kaito_core.controller.metrics import Metrics
from kaito_core.controller.plugin_thread import PluginThread
from kaito_core.controller.records import Change, Key
from kaito_core.controller.resources import CHILDREN
from kaito_core.controller.watch.cache import Cache, watched_resources
from kaito_core.controller.watch.engine import register_watches, watch, watch_session, watch_settings
from kaito_core.controller.watch.heartbeat import Heartbeat
from kaito_core.controller.watch.resync import Resync
from kaito_core.controller.watch.triggers import affected, is_urgent
from kaito_core.controller.webhook.server import Webhook
from kaito_core.controller.work.loop import Loop, Outcome
from kaito_core.controller.work.provider_life import running_providers
from kaito_core.controller.work.reconciler import Reconciler
from kaito_core.controller.work.replicas import Ask, Replicas, ask_over_http
from kaito_core.errors import ClusterError
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.objects.manifests import PODS
from kaito_core.settings import Settings

__all__ = ["Operator", "run_operator", "spare_collector"]

log = logging.getLogger(__name__)

OnPass = Callable[[Key, Outcome], None]

#: Allocations between two collections of young objects; more of them cost memory and save time.
_ALLOCATIONS = 2_000


def _ignore(key: Key, outcome: Outcome) -> None:
    pass


class Operator:
    """The parts of a running operator, between a cluster and the plugins.

    Args:
        settings: The operator's settings.
        registry: The plugins.
        cluster: Where Workspaces live.
        ask: Asks a pod which adapters it serves.
        ready: Set once the caches are filled.
        on_pass: Called after each pass.
    """

    def __init__(
        self,
        settings: Settings,
        registry: PluginRegistry,
        cluster: KubernetesCluster,
        ask: Ask = ask_over_http,
        ready: threading.Event | None = None,
        on_pass: OnPass = _ignore,
    ) -> None:
        self._settings, self._cluster, self._ready, self._on_pass = settings, cluster, ready, on_pass
        self._metrics = Metrics()
        self._metrics.show_plugins(registry.plugins)
        self._thread = PluginThread()
        self._reconciler = Reconciler(settings, registry, cluster, Replicas(ask), self._metrics, self._thread)
        self._loop = Loop(self._pass)
        self.heartbeat = Heartbeat(settings.watch_silence_seconds)
        self._resync = Resync(
            cluster.cache,
            cluster.fetch,
            settings.namespaces,
            settings.resync_seconds,
            self._synced,
            lambda resource: self.heartbeat.forget(resource.plural),
            self._metrics,
        )
        cluster.on_change = lambda change: self._wake([change])
        cluster.on_write = self._metrics.count_write
        self._metrics.follow(self._metrics.workspaces, lambda: len(self._everyone()))
        self._metrics.follow(self._metrics.queue_depth, lambda: self._loop.depth)
        self._metrics.follow(self._metrics.watches_silent, lambda: len(self.heartbeat.silent()))
        self._metrics.follow(self._metrics.leader, lambda: 0 if self._stands_by else 1)
        self._stands_by = settings.leader_election
        self._health = HealthServer(self._metrics, self._why_dead, self._why_unready)
        self._webhook: Webhook | None = None
        if settings.webhook_port:
            self._webhook = Webhook(cluster, registry, self._thread, settings.webhook_namespace, settings.webhook_port)
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> None:
        """Starts to answer probes and the admission webhook, which every replica does, also one that stands by."""
        await self._health.start(self._settings.health_port)
        if self._webhook is not None:
            self._tasks.append(asyncio.create_task(self._webhook.run(), name="webhook"))

    def start(self) -> None:
        """Starts to fill the caches; passes begin once they are full."""
        self._stands_by = False
        self._tasks.append(asyncio.create_task(self._resync.run(), name="resync"))

    async def stop_passes(self) -> None:
        """Cancels all passes and what causes them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loop.close()

    async def close(self) -> None:
        """Stops everything. Plugins that observe outcomes get 5 seconds to hear the last ones."""
        await self.stop_passes()
        await self._health.close()
        if self._webhook is not None:
            await self._webhook.close()
        await self._reconciler.observers.close()
        self._thread.close()

    def feed(self, resource: ResourceType, obj: KubeObject, gone: bool) -> None:
        """Stores what a watch reports, and wakes the Workspaces that it affects."""
        # Objects in a watch name their type, those of the first listing do not.
        named = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        cache = self._cluster.cache
        change = cache.remove(resource, named, gone=True) if gone else cache.put(resource, named)
        if change is not None:
            self._wake([change])

    def _why_dead(self) -> str:
        for task in self._tasks:
            if task.done():
                return f"the task '{task.get_name()}' has ended"
        silent = [f"{path} for {seconds:.0f} s" for path, seconds in sorted(self.heartbeat.silent().items())]
        return f"watches are silent: {', '.join(silent)}" if silent else ""

    async def _why_unready(self) -> str:
        if not self._stands_by and not self._resync.is_synced:
            return "the caches are not filled yet"
        silent = await self._cluster.why_silent()
        return f"the Kubernetes API cannot be reached: {silent}" if silent else ""

    async def _pass(self, key: Key, streak: int) -> Outcome:
        outcome = await self._reconciler.run(key, streak)
        self._on_pass(key, outcome)
        return outcome

    def _synced(self, changes: Sequence[Change]) -> None:
        self._wake(changes)
        for key in self._everyone():
            self._loop.wake(key)
        self._loop.open()
        if self._ready is not None:
            self._ready.set()

    def _wake(self, changes: Sequence[Change]) -> None:
        for change in changes:
            for key in affected(change, self._everyone):
                self._loop.wake(key, urgent=is_urgent(change))

    def _everyone(self) -> set[Key]:
        documents = self._cluster.cache.list(WORKSPACES)
        return {(document["metadata"]["namespace"], document["metadata"]["name"]) for document in documents}


async def _operate(
    settings: Settings,
    plugins: PluginRegistry,
    kubeconfig: str | None,
    ready: threading.Event | None,
    stop: threading.Event,
    ask: Ask,
    on_pass: OnPass,
) -> None:
    watched = watched_resources((*CHILDREN.values(), PODS), plugins.watched_types())
    types = [item.resource for item in watched]
    async with await connect(Cache(watched), types, kubeconfig, settings.api_timeout_seconds) as cluster:
        operator = Operator(settings, plugins, cluster, ask, ready, on_pass)
        registry = kopf.OperatorRegistry()
        options = watch_settings(watched, operator.heartbeat.watch_seconds)
        register_watches(registry, watched, operator.feed)

        @kopf.on.login(registry=registry)
        async def login(**_: object) -> kopf.AiohttpSession:
            return watch_session(await cluster.connection(), operator.heartbeat)

        stopping = asyncio.Event()
        election: Election | None = None
        if settings.leader_election:
            election = Election(cluster, settings.leader_election_namespace, settings.lease_seconds)
        keeper: asyncio.Task[None] | None = None

        @kopf.on.cleanup(registry=registry)
        async def end(**_: object) -> None:
            await operator.stop_passes()
            stopping.set()  # kopf takes all tasks for its own and waits for them, the one that awaits this included
            if keeper is not None:
                keeper.cancel()

        follower = asyncio.create_task(_follow(stop, stopping), name="stop event")
        try:
            await operator.serve()
            if election is not None:
                if not await stand_by(election, stopping):
                    return
                cluster.may_write = lambda: election.leads
                keeper = asyncio.create_task(_lead(election, operator, stopping), name="lease")
            async with running_providers(plugins, cluster):
                operator.start()
                await watch(registry, options, settings.namespaces, stopping)
            if keeper is not None and keeper.done() and not keeper.cancelled():
                raise ClusterError("the Lease is lost: another operator may lead; start again to stand by")
        finally:
            stop.set()  # a thread waits for it, also where a signal came first
            await operator.stop_passes()
            if keeper is not None and election is not None:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
                await election.release()
            await operator.close()
            await follower


async def _lead(election: Election, operator: Operator, stopping: asyncio.Event) -> None:
    """Keeps the Lease; once it is lost, stops all passes and the process."""
    await election.keep()
    await operator.stop_passes()
    stopping.set()


async def _follow(stop: threading.Event, stopping: asyncio.Event) -> None:
    # kopf can wait for a thread's event itself, but then waits for that thread even after a signal.
    await asyncio.to_thread(stop.wait)
    stopping.set()


def run_operator(
    settings: Settings,
    registry: PluginRegistry,
    *,
    kubeconfig: str | None = None,
    ready: threading.Event | None = None,
    stop: threading.Event | None = None,
    ask: Ask = ask_over_http,
    on_pass: OnPass = _ignore,
) -> None:
    """Runs the operator until SIGTERM, SIGINT or the stop event.

    Args:
        settings: The operator's settings.
        registry: The plugins.
        kubeconfig: Path; None for the pod's service account, else the user's default.
        ready: Set once the caches are filled and passes begin.
        stop: Ends the operator when it is set; set by the operator when a signal ends it. Signals are handled in the
            main thread only.
        ask: Asks a pod which adapters it serves.
        on_pass: Called after each pass with the Workspace's namespace and name, and with how the pass ended.

    Raises:
        ConfigError: There is no cluster to connect to.
        ClusterError: A watch failed for good, or the Lease is lost; start again.
        OSError: The health port is taken.
    """
    asyncio.run(_operate(settings, registry, kubeconfig, ready, stop or threading.Event(), ask, on_pass))


def spare_collector() -> None:
    """Excludes all objects that exist now from garbage collection, and lets it run less often. For whole processes.

    Imported modules and plugins are most of the operator's objects; scanning them again and again took a sixth of its
    CPU time, and stopped all watches and passes meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, *gc.get_threshold()[1:])
