"""An asynchronous client of a cluster for benchmarks: many writes at a time, and watches that do not end."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Self

import aiohttp

from kaito_core.api import KubeObject
from kaito_testing.world.client import STRATEGIC, KubeClient

__all__ = ["STRATEGIC", "Api", "Sightings"]

_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_LONGEST_LINE = 1 << 20  # bytes of one event of a watch


class Api:
    """The API of a cluster. Leaving the `async with` block ends its watches.

    Args:
        cluster: The cluster's address and credentials.
    """

    def __init__(self, cluster: KubeClient) -> None:
        self._cluster = cluster
        self._watches: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        context = self._cluster.ssl_context
        self._session = aiohttp.ClientSession(
            self._cluster.url,
            connector=aiohttp.TCPConnector(limit=0, ssl=True if context is None else context),
            headers={"User-Agent": "kaito-testing/1", **self._cluster.authorization},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            read_bufsize=_LONGEST_LINE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await self._session.close()

    async def send(self, method: str, path: str, body: KubeObject, content_type: str = "application/json") -> None:
        """Sends a write.

        Raises:
            RuntimeError: The API refuses it.
        """
        headers = {"Content-Type": content_type}
        async with self._session.request(method, path, data=json.dumps(body), headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status}: {text}")

    def watch(self, path: str, take: Callable[[str, KubeObject], None], *, whole: bool = True) -> None:
        """Watches a list of objects until the block ends.

        Args:
            path: Path of the list, with its query.
            take: Called with "ADDED", "MODIFIED" or "DELETED" and the object. When a watch starts again, "ADDED" is
                repeated for objects that exist.
            whole: Whether whole objects are needed. If not, servers that can do so send the metadata only.
        """
        self._watches.append(asyncio.create_task(self._follow(path, take, "application/json" if whole else _METADATA)))

    async def _follow(self, path: str, take: Callable[[str, KubeObject], None], accept: str) -> None:
        where = f"{path}{'&' if '?' in path else '?'}watch=true"
        while True:  # servers end watches from time to time
            async with self._session.get(where, headers={"Accept": accept}) as answer:
                answer.raise_for_status()
                async for line in answer.content:
                    event: dict[str, Any] = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                        take(event["type"], event["object"])

    def failed(self) -> None:
        """Raises the error of a watch that has failed: what is waited for would never be seen."""
        for task in self._watches:
            if task.done():
                task.result()


class Sightings:
    """When each object was first seen to meet a condition.

    Args:
        is_it: The condition.

    Attributes:
        at: Seconds of `time.perf_counter`, by the name of the object.
    """

    def __init__(self, is_it: Callable[[KubeObject], bool] = lambda obj: True) -> None:
        self.at: dict[str, float] = {}
        self._is_it = is_it

    def take(self, kind: str, obj: KubeObject) -> None:
        """Records an event of a watch."""
        if kind != "DELETED" and self._is_it(obj):
            self.at.setdefault(obj["metadata"]["name"], time.perf_counter())
