"""Watch streams: history replayed, then followed, with bookmarks, time limits and drops on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from kaito_core.testing.kube import conversion, selectors
from kaito_core.testing.kube.errors import ApiError, expired
from kaito_core.testing.kube.resources import Resource
from kaito_core.testing.kube.routes import Route
from kaito_core.testing.kube.store import Store

__all__ = ["Watches", "is_true"]

_DEFAULT_SECONDS = 1800.0
_BOOKMARK_SECONDS = 5.0  # a real server takes about a minute; tests do not


def is_true(query: Mapping[str, str], name: str) -> bool:
    """A flag of a query, in any of the spellings that the API takes (Python's clients write "True")."""
    return query.get(name, "").lower() in ("1", "t", "true")


class _Watch:
    """One open stream's state."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.end: str = ""  # "" while open, "drop" or "expire"


class Watches:
    """All open watch streams of a server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: set[_Watch] = set()
        store.listeners.append(self._wake)

    def __len__(self) -> int:
        return len(self._open)

    def _wake(self) -> None:
        for watch in self._open:
            watch.wake.set()

    def end(self, how: str) -> None:
        """Ends every open stream: "drop" closes it, "expire" says 410 Gone first."""
        for watch in self._open:
            watch.end = how
        self._wake()

    async def serve(
        self, request: web.BaseRequest, resource: Resource, route: Route, query: Mapping[str, str]
    ) -> web.StreamResponse:
        """Serves one watch until it times out, is ended, or the client goes.

        Raises:
            ApiError: Before the stream opens, for selectors that cannot be parsed.
        """
        matches = selectors.both(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if route.name:
            named = selectors.field_selector(f"metadata.name={route.name}")
            matches = _all(matches, named)
        if route.namespace:
            matches = _all(matches, selectors.field_selector(f"metadata.namespace={route.namespace}"))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        watch = _Watch()
        self._open.add(watch)
        try:
            await self._stream(response, watch, resource, route, query, matches)
        except ConnectionError:
            pass  # the client went away, as clients do
        finally:
            self._open.discard(watch)
        return response

    async def _stream(
        self,
        response: web.StreamResponse,
        watch: _Watch,
        resource: Resource,
        route: Route,
        query: Mapping[str, str],
        matches: selectors.Predicate,
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + float(query.get("timeoutSeconds") or _DEFAULT_SECONDS)
        bookmarks = is_true(query, "allowWatchBookmarks")

        async def send(kind: str, obj: dict[str, Any]) -> None:
            await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")

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
            if left <= 0:
                break
            try:
                await asyncio.wait_for(watch.wake.wait(), min(left, _BOOKMARK_SECONDS))
            except TimeoutError:
                if bookmarks:
                    await bookmark(revision)
        if watch.end == "expire":
            await send("ERROR", expired(revision, self._store.revision).to_status())


def _all(*predicates: selectors.Predicate) -> selectors.Predicate:
    return lambda obj: all(predicate(obj) for predicate in predicates)
