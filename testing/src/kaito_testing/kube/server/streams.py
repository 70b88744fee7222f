"""Watch streams of the emulated API: the history is replayed, then followed, with bookmarks and time limits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from kaito_testing.kube.errors import ApiError, expired
from kaito_testing.kube.objects import conversion, selectors
from kaito_testing.kube.objects.store import Store
from kaito_testing.kube.resources import Resource
from kaito_testing.kube.server.interceptor import ApiRequest
from kaito_testing.kube.server.routes import Route
from kaito_testing.kube.server.watches import Watch, Watches, is_true, watch_event

__all__ = ["Streams"]

_DEFAULT_SECONDS = 1800.0
_BOOKMARK_SECONDS = 5.0  # a real server takes about a minute; tests do not


class Streams:
    """The watch streams of a store.

    Args:
        store: What is watched.
        watches: The open streams; others end them through it.
    """

    def __init__(self, store: Store, watches: Watches) -> None:
        self._store, self._watches = store, watches
        store.listeners.append(lambda _: watches.wake())

    async def serve(self, request: ApiRequest, resource: Resource, route: Route) -> web.StreamResponse:
        """Serves a watch until it times out, is ended, or the client disconnects.

        Raises:
            ApiError: The selectors cannot be parsed; the stream is not open yet.
        """
        query = request.query
        matches = selectors.both(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if route.name:
            named = selectors.field_selector(f"metadata.name={route.name}")
            matches = _all(matches, named)
        if route.namespace:
            matches = _all(matches, selectors.field_selector(f"metadata.namespace={route.namespace}"))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        request.record(response.status)
        await response.prepare(request.raw)
        with self._watches.open() as watch, contextlib.suppress(ConnectionError):  # clients go away
            await self._stream(response, watch, resource, route, query, matches)
        return response

    async def _stream(
        self,
        response: web.StreamResponse,
        watch: Watch,
        resource: Resource,
        route: Route,
        query: Mapping[str, str],
        matches: selectors.Predicate,
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + float(query.get("timeoutSeconds") or _DEFAULT_SECONDS)
        bookmarks = is_true(query, "allowWatchBookmarks")

        async def send(kind: str, obj: dict[str, Any]) -> None:
            await response.write(watch_event(kind, obj))

        async def bookmark(revision: int, *, initial_end: bool = False) -> None:
            meta: dict[str, Any] = {"resourceVersion": str(revision)}
            if initial_end:
                meta["annotations"] = {"k8s.io/initial-events-end": "true"}
            await send("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})

        revision = int(query.get("resourceVersion") or 0)
        initial = is_true(query, "sendInitialEvents")
        if revision == 0 or initial:
            page = self._store.page(resource, route.namespace, matches)
            revision = page.revision
            for obj in page.items:
                await send("ADDED", obj)
            if initial and bookmarks:
                await bookmark(revision, initial_end=True)
        while not watch.end:
            watch.wake.clear()
            try:
                events = list(self._store.history.since(revision, resource.storage))
            except ApiError as error:
                await send("ERROR", error.to_status())
                return
            revision = max(revision, self._store.revision)
            for event in events:
                kind = event.seen_by(matches)
                if kind is not None:
                    await send(kind, conversion.from_storage(resource, event.new))
            left = deadline - loop.time()
            if left <= 0 or self._store.resource(route.group, route.version, route.plural) is None:
                break  # a type that is no longer served cannot be watched
            try:
                await asyncio.wait_for(watch.wake.wait(), min(left, _BOOKMARK_SECONDS))
            except TimeoutError:
                if bookmarks:
                    await bookmark(revision)
        if watch.end == "expire":
            await send("ERROR", expired(revision, self._store.revision).to_status())


def _all(*predicates: selectors.Predicate) -> selectors.Predicate:
    return lambda obj: all(predicate(obj) for predicate in predicates)
