"""kopf, which opens the watches and keeps them open: its settings, its connection, its handlers and its run.

Each watched resource type has one `on.event` handler, for which kopf writes no annotation and no finalizer. The handler
hands every event to the operator and does nothing else.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import aiohttp
import kopf

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.api.workspace.model import GROUP
from kaito_core.controller.records import Connection, Watched
from kaito_core.controller.watch.heartbeat import Heartbeat
from kaito_core.errors import ClusterError

__all__ = ["Feed", "register_watches", "watch", "watch_session", "watch_settings"]

Feed = Callable[[ResourceType, KubeObject, bool], None]  #: resource type, object, whether it was deleted

_END_SECONDS = 5.0  # for kopf to stop in


class _Backoffs:
    """Waits between attempts, in seconds, without end: after a last one kopf gives the watch up for good."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1, 2, 4, 8, 15), itertools.repeat(30))


class _NoDiffs(kopf.DiffBaseStorage):
    """Compares nothing: kopf's own storage copies each object, 0.7 ms for a pod, for handlers that we do not have."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        raise NotImplementedError("kopf writes nothing")


def watch_settings(watched: Iterable[Watched], watch_seconds: int) -> kopf.OperatorSettings:
    """Returns settings under which kopf watches and writes nothing.

    Args:
        watched: What is watched.
        watch_seconds: How long a watch stays open before it is opened again, which proves that it is alive.
    """
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # a "default" peering of another operator would freeze this one
    settings.posting.enabled = False  # our own events are one per change
    # Nothing is written under these names, but another kopf operator's names would be taken for ours.
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.networking.enforce_retry_after = True
    settings.networking.error_backoffs = _Backoffs()
    settings.watching.server_timeout = watch_seconds
    settings.watching.client_timeout = watch_seconds + 30  # for servers that keep a watch open for longer
    for resource in (item.resource for item in watched if item.labelled):
        settings.watching.label_selectors[resource.group, resource.version, resource.plural] = WORKSPACE_LABEL
    return settings


def register_watches(registry: kopf.OperatorRegistry, watched: Iterable[Watched], feed: Feed) -> None:
    """Registers a handler for each watched resource type."""
    for item in watched:
        _register(registry, item.resource, feed)


def _register(registry: kopf.OperatorRegistry, resource: ResourceType, feed: Feed) -> None:
    async def observe(event: Any, **_: Any) -> None:
        feed(resource, dict(event["object"]), event["type"] == "DELETED")

    kopf.on.event(
        group=resource.group,
        version=resource.version,
        plural=resource.plural,
        id=f"observe-{resource.plural}",
        registry=registry,
    )(observe)


def watch_session(found: Connection, heartbeat: Heartbeat) -> kopf.AiohttpSession:
    """Returns kopf's HTTP session, whose watches the heartbeat observes."""
    info = kopf.ConnectionInfo(
        server=found.server,
        scheme="Bearer" if found.token else None,
        token=found.token or None,
        ca_path=found.ca_file,
        certificate_path=found.certificate_file,
        private_key_path=found.key_file,
        insecure=found.insecure,
        proxy_url=found.proxy,
    )
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trace_configs=[heartbeat.trace()],
        middlewares=[_go_on],
    )
    return kopf.AiohttpSession(server=found.server, aiohttp_session=session)


async def _go_on(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps kopf going where a watch cannot be opened: it retries lost connections, but a 404 or 410 ends it."""
    answer = await send(request)
    if answer.status == 410 and "watch" in request.url.query:
        answer.release()
        request.url = request.url.without_query_params("resourceVersion")  # starts from the present state
        answer = await send(request)
    if answer.status == 404 and _is_of_objects(request.url.path):
        answer.release()  # its CRD has just been removed, which kopf learns a moment later
        raise aiohttp.ClientConnectionError(f"{request.url.path} is not served")
    return answer


def _is_of_objects(path: str) -> bool:
    """Returns whether a path is one of objects, not that of an API group or its resource types."""
    parts = path.strip("/").split("/")
    return len(parts) > (2 if parts[0] == "api" else 3)


async def watch(
    registry: kopf.OperatorRegistry,
    options: kopf.OperatorSettings,
    namespaces: Sequence[str],
    stopping: asyncio.Event,
) -> None:
    """Runs kopf until it is stopped.

    Raises:
        ClusterError: A watch has failed for good; an operator that went on would miss changes.
    """
    others = asyncio.all_tasks()
    stopped = asyncio.create_task(stopping.wait(), name="stopped")
    run = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=options,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=stopping,
            # Of peering only, which is off. kopf would make it of the user's name, and a container's uid has none.
            identity="kaito-operator",  # type: ignore[arg-type]  # a NewType of str that kopf does not export
        ),
        name="kopf",
    )
    try:
        await asyncio.wait({run, stopped}, return_when=asyncio.FIRST_COMPLETED)
        while not (await asyncio.wait({run}, timeout=_END_SECONDS))[0]:
            # kopf cancels each task once and then waits; a watch that is just logging in again loses the cancellation.
            for task in asyncio.all_tasks() - others - {run, stopped}:
                task.cancel()
        await run
    except Exception as error:
        raise ClusterError(f"the cluster cannot be watched any more: {error}") from error
    finally:
        stopped.cancel()
