"""kopf, as far as it is used: its settings, its way to the API, its run. What it tells is taken in by `handlers`."""

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Sequence

import aiohttp
import kopf

from kaito_core.api.workspace.model import GROUP
from kaito_core.controller.cluster import Connection
from kaito_core.controller.watch.heartbeat import Heartbeat
from kaito_core.errors import ClusterError

__all__ = ["watch", "watch_session", "watch_settings"]

_END_SECONDS = 5.0  # for kopf to end in by itself


class _Backoffs:
    """Never gives up: kopf's own backoffs end after a minute, and the watch that they end is not started again."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1, 2, 4, 8, 15), itertools.repeat(30))


class _NoDiffs(kopf.DiffBaseStorage):
    """Finds no differences: kopf would copy every object that it hears of, for handlers that we have none of."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        raise NotImplementedError("kopf writes nothing")


def watch_settings(watch_seconds: int) -> kopf.OperatorSettings:
    """Returns settings under which kopf watches and writes nothing.

    Args:
        watch_seconds: How long a watch is kept open before it is opened anew, which shows that it is alive.
    """
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # a foreign "default" peering would freeze us
    settings.posting.enabled = False  # our own events are one per change
    # Nothing is written under these names; another operator's would be taken for ours all the same.
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.networking.enforce_retry_after = True
    settings.networking.error_backoffs = _Backoffs()
    settings.watching.server_timeout = watch_seconds
    settings.watching.client_timeout = watch_seconds + 30  # for servers that do not keep to it
    return settings


def watch_session(found: Connection, heartbeat: Heartbeat) -> kopf.AiohttpSession:
    """Returns kopf's way to the API: its own, and the heartbeat hears what is opened on it."""
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
    """Lets watches go on where an answer to their opening would end kopf; errors within a watch it takes well."""
    answer = await send(request)
    if answer.status == 410 and "watch" in request.url.query:
        answer.release()
        request.url = request.url.without_query_params("resourceVersion")  # from what there is now
        answer = await send(request)
    if answer.status == 404 and _is_of_objects(request.url.path):
        answer.release()  # a CRD that has just been removed; kopf tries again until it has heard of that
        raise aiohttp.ClientConnectionError(f"{request.url.path} is not served")
    return answer


def _is_of_objects(path: str) -> bool:
    """Returns whether a path is of objects, and not of a group or its types."""
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
        ClusterError: A watch has failed for good. An operator that went on without it would be blind.
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
        ),
        name="kopf",
    )
    try:
        await asyncio.wait({run, stopped}, return_when=asyncio.FIRST_COMPLETED)
        while not (await asyncio.wait({run}, timeout=_END_SECONDS))[0]:
            # kopf cancels each of its tasks once; one that was just about to log in again misses it, and is waited for.
            for task in asyncio.all_tasks() - others - {run, stopped}:
                task.cancel()
        await run
    except Exception as error:
        raise ClusterError(f"the cluster cannot be watched any more: {error}") from error
    finally:
        stopped.cancel()
