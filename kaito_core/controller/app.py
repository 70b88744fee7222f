"""The operator as a process: its parts put together, start and stop."""

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Sequence

import kopf

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.controller.cluster import KubernetesCluster, connect
from kaito_core.controller.health import HealthServer
from kaito_core.controller.leader import Election
from kaito_core.controller.metrics import Metrics
from kaito_core.controller.records import Change, Key
from kaito_core.controller.resources import CHILDREN
from kaito_core.controller.watch.cache import Cache, watched_resources
from kaito_core.controller.watch.engine import register_watches, watch, watch_session, watch_settings
from kaito_core.controller.watch.heartbeat import Heartbeat
from kaito_core.controller.watch.resync import Resync
from kaito_core.controller.watch.triggers import affected, is_urgent
from kaito_core.controller.webhook.server import Webhook
from kaito_core.controller.work.loop import Loop, Outcome
from kaito_core.controller.work.reconciler import Reconciler
from kaito_core.controller.work.replicas import Ask, Replicas, ask_over_http
from kaito_core.errors import ClusterError
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.manifests import PODS
from kaito_core.settings import Settings

__all__ = ["Operator", "run_operator", "spare_collector"]

log = logging.getLogger(__name__)

#: Allocations between two collections of young objects; more of them cost memory and save time.
_ALLOCATIONS = 2_000


class Operator:
    """The parts of a running operator, between a cluster and the plugins.

    Args:
        settings: What the process was started with.
        registry: The plugins.
        cluster: Where Workspaces live.
        ask: Asks a pod what it has applied.
        ready: Set once the caches are filled.
    """

    def __init__(
        self,
        settings: Settings,
        registry: PluginRegistry,
        cluster: KubernetesCluster,
        ask: Ask = ask_over_http,
        ready: threading.Event | None = None,
    ) -> None:
        self._settings, self._cluster, self._ready = settings, cluster, ready
        self._metrics = Metrics()
        self._metrics.tell_plugins(registry.plugins)
        self._reconciler = Reconciler(settings, registry, cluster, Replicas(ask), self._metrics)
        self._loop = Loop(self._look)
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
        cluster.on_write = self._metrics.wrote
        self._metrics.follow(self._metrics.workspaces, lambda: len(self._everyone()))
        self._metrics.follow(self._metrics.queue_depth, lambda: self._loop.depth)
        self._metrics.follow(self._metrics.watches_silent, lambda: len(self.heartbeat.silent()))
        self._metrics.follow(self._metrics.leader, lambda: 0 if self._stands_by else 1)
        self._stands_by = settings.leader_election
        self._health = HealthServer(self._metrics, self._why_dead, self._why_unready)
        self._tasks: list[asyncio.Task[None]] = []

    async def answer_probes(self) -> None:
        """Starts to answer probes; one that stands by is ready to while the API answers."""
        await self._health.start(self._settings.health_port)

    def start(self) -> None:
        """Starts to fill the caches; passes begin when they are full."""
        self._stands_by = False
        self._tasks.append(asyncio.create_task(self._resync.run(), name="resync"))

    async def close(self) -> None:
        """Stops everything that `start` has started, and all passes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loop.close()
        await self._health.close()

    def feed(self, resource: ResourceType, obj: KubeObject, gone: bool) -> None:
        """Takes in what a watch tells, and wakes whom it concerns."""
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

    async def _look(self, key: Key, streak: int) -> Outcome:
        return await self._reconciler.run(key, streak)

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
    stop: threading.Event | None,
    ask: Ask,
) -> None:
    providers = [resource for provider in plugins.providers.values() for resource in provider.watches]
    watched = watched_resources((*CHILDREN.values(), PODS), providers)
    types = [item.resource for item in watched]
    async with await connect(Cache(watched), types, kubeconfig, settings.api_timeout_seconds) as cluster:
        operator = Operator(settings, plugins, cluster, ask, ready)
        registry = kopf.OperatorRegistry()
        options = watch_settings(watched, operator.heartbeat.watch_seconds)
        register_watches(registry, watched, operator.feed)

        @kopf.on.login(registry=registry)
        async def login(**_: object) -> kopf.AiohttpSession:
            return watch_session(await cluster.connection(), operator.heartbeat)

        stop, stopping = stop or threading.Event(), asyncio.Event()
        election = _election(settings, cluster)
        keeper: asyncio.Task[None] | None = None

        @kopf.on.cleanup(registry=registry)
        async def close(**_: object) -> None:
            await operator.close()
            stopping.set()  # kopf takes all tasks for its own and waits for them, the one that awaits this included
            if keeper is not None:
                keeper.cancel()

        follower = asyncio.create_task(_follow(stop, stopping), name="stop event")
        webhook = _webhook(settings, plugins, cluster)
        try:
            await operator.answer_probes()
            if webhook is not None:  # of every replica, also while it stands by
                webhook.start()
            if election is not None:
                if not await _elected(election, stopping):
                    return
                cluster.may_write = lambda: election.leads
                keeper = asyncio.create_task(_lead(election, operator, stopping), name="lease")
            operator.start()
            await watch(registry, options, settings.namespaces, stopping)
            if keeper is not None and keeper.done() and not keeper.cancelled():
                raise ClusterError("the Lease is lost: another operator may lead; start again to stand by")
        finally:
            stop.set()  # a thread waits for it, also where a signal came first
            await operator.close()
            if webhook is not None:
                await webhook.close()
            if keeper is not None and election is not None:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
                await election.release()
            await follower


def _webhook(settings: Settings, plugins: PluginRegistry, cluster: KubernetesCluster) -> Webhook | None:
    if not settings.webhook_port:
        return None
    return Webhook(cluster, plugins, settings.webhook_namespace, settings.webhook_port)


def _election(settings: Settings, cluster: KubernetesCluster) -> Election | None:
    if not settings.leader_election:
        return None
    return Election(cluster, settings.leader_election_namespace, settings.lease_seconds)


async def _elected(election: Election, stopping: asyncio.Event) -> bool:
    """Stands by; returns whether this operator leads, else it has been stopped."""
    loop = asyncio.get_running_loop()
    heeds = threading.current_thread() is threading.main_thread()
    signals = (signal.SIGTERM, signal.SIGINT) if heeds else ()
    for number in signals:  # kopf heeds them once it runs, which is not yet
        loop.add_signal_handler(number, stopping.set)
    waits = [asyncio.create_task(election.acquire()), asyncio.create_task(stopping.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set() and waits[0].done():
            await election.release()
        return not stopping.is_set()
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        for number in signals:
            loop.remove_signal_handler(number)


async def _lead(election: Election, operator: Operator, stopping: asyncio.Event) -> None:
    """Keeps the Lease; when it is lost, nothing more is written and the process ends."""
    await election.keep()
    await operator.close()
    stopping.set()


async def _follow(stop: threading.Event, stopping: asyncio.Event) -> None:
    # kopf can wait for a thread's event too, and then waits for that thread when a signal ends it.
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
) -> None:
    """Runs the operator until SIGTERM, SIGINT or the stop event.

    Args:
        settings: Namespaces, ports, intervals.
        registry: The plugins.
        kubeconfig: Path; None for the pod's service account or the user's default.
        ready: Set once the caches are filled and passes have begun.
        stop: Ends the operator when it is set. Signals are heeded in the main thread only.
        ask: Asks a pod what it has applied.

    Raises:
        ConfigError: There is no cluster to connect to.
        ClusterError: A watch has ended for good, or the Lease is lost; start again.
        OSError: The health port is taken.
    """
    asyncio.run(_operate(settings, registry, kubeconfig, ready, stop, ask))


def spare_collector() -> None:
    """Excludes all objects that exist now from garbage collection, and lets it run less often. For whole processes.

    Imported modules and plugins are most of the operator's objects; scanning them again and again took a sixth of its
    CPU time, and stopped all watches and passes meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, *gc.get_threshold()[1:])
