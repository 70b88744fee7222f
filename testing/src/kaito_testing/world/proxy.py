"""`ProxiedCluster`: a real API server behind a proxy on a local port that fails as tests tell it to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from yarl import URL

from kaito_testing.kube.errors import expired
from kaito_testing.kube.server.interceptor import TEST_CLIENT, ApiRequest, Interceptor
from kaito_testing.kube.server.watches import is_true, watch_event
from kaito_testing.world.client import KubeClient
from kaito_testing.world.faulty_cluster import Answer, FaultyCluster

__all__ = ["ProxiedCluster"]

#: Headers of the connection, and the client's identity, for which the proxy has its own.
_NOT_PASSED_ON = frozenset(
    {"host", "authorization", "connection", "accept-encoding", "content-length", "transfer-encoding", "keep-alive"}
)
_PASSED_BACK = ("Content-Type", "Retry-After", "Warning")
_LONGEST_LINE = 2**22  # bytes; an object in a watch, of which etcd stores at most 1.5 MiB
_LOOK_SECONDS = 1.0  # how often a silent watch looks whether its client is still connected


class ProxiedCluster(FaultyCluster):
    """A cluster behind a local proxy, with what `FaultyCluster` adds.

    Every client of the port acts with the rights of `server`, as with `kubectl proxy`.

    Args:
        server: A client of the cluster.
    """

    def __init__(self, server: KubeClient) -> None:
        super().__init__(
            "",
            has_gc=server.has_gc,
            has_controllers=server.has_controllers,
            has_workloads=server.has_workloads,
        )
        self._server = server
        self._session: aiohttp.ClientSession
        self._oldest = 0  # the oldest revision at which a watch may start

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[Answer]:
        self._interceptor = Interceptor()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            return await self._interceptor.answer(request, self._serve)

        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._server.ssl_context or True),
            headers={**self._server.authorization, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=_LONGEST_LINE,
        ) as self._session:
            yield answer

    async def _forget(self) -> None:
        # A new revision, so that a list made from now on is newer than what is forgotten.
        path = f"{self._server.url}/api/v1/namespaces/default/configmaps"
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "kaito-testing-"}}
        headers = {"User-Agent": TEST_CLIENT}
        async with self._session.post(path, json=manifest, headers=headers, raise_for_status=True) as answer:
            metadata = (await answer.json())["metadata"]
        async with self._session.delete(f"{path}/{metadata['name']}", headers=headers, raise_for_status=True):
            self._oldest = int(metadata["resourceVersion"])

    async def _serve(self, request: ApiRequest) -> web.StreamResponse:
        raw = request.raw
        since = int(request.query.get("resourceVersion") or 0) if request.is_watch else 0
        if 0 < since < self._oldest and not is_true(request.query, "sendInitialEvents"):
            return await self._refuse(request, since)
        async with self._session.request(
            raw.method,
            URL(self._server.url + raw.raw_path, encoded=True),
            data=await raw.read() or None,
            headers=[(name, value) for name, value in raw.headers.items() if name.lower() not in _NOT_PASSED_ON],
            allow_redirects=False,
        ) as answer:
            headers = [(name, value) for name in _PASSED_BACK for value in answer.headers.getall(name, ())]
            if request.is_watch and answer.status == 200:
                return await self._stream(request, answer)
            return web.Response(status=answer.status, headers=headers, body=await answer.read())

    async def _stream(self, request: ApiRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        """Passes the lines of a watch on until either side or a test ends it."""
        response = await _open(request)

        async def copy() -> None:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # both sides may go away
                async for line in answer.content:
                    await response.write(line)

        with self._interceptor.watches.open() as watch:
            copying, ended = asyncio.create_task(copy()), asyncio.create_task(watch.wake.wait())
            try:
                while request.raw.transport is not None and not request.raw.transport.is_closing():
                    done, _ = await asyncio.wait(
                        {copying, ended}, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    if done:
                        break
            finally:
                for task in (copying, ended):
                    task.cancel()
                await asyncio.gather(copying, ended, return_exceptions=True)
            if watch.end == "expire":
                await response.write(_gone(0, self._oldest))
        return response

    async def _refuse(self, request: ApiRequest, since: int) -> web.StreamResponse:
        """Answers 410 Gone as a real server does: in the stream, under status 200."""
        response = await _open(request)
        await response.write(_gone(since, self._oldest))
        return response


async def _open(request: ApiRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    request.record(response.status)
    await response.prepare(request.raw)
    return response


def _gone(since: int, oldest: int) -> bytes:
    return watch_event("ERROR", expired(since, oldest).to_status())
