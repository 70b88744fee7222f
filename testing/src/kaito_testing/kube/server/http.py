"""The HTTP layer of the emulated API: requests in, store calls, answers and watch streams out. No rules live here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import kmock
from aiohttp import web

from kaito_testing.kube import errors
from kaito_testing.kube.objects import patches, selectors
from kaito_testing.kube.objects.options import DeleteOptions, WriteOptions
from kaito_testing.kube.objects.resources import Resource
from kaito_testing.kube.objects.store import Store
from kaito_testing.kube.server import discovery, routes
from kaito_testing.kube.server import representations as views
from kaito_testing.kube.server.gate import Asked, Gate
from kaito_testing.kube.server.streams import Streams
from kaito_testing.kube.server.watches import is_true
from kaito_testing.kube.server.webhooks import OPERATIONS, Webhooks

__all__ = ["EmulatedApi", "MockedApi"]

Object = dict[str, Any]

_APPLY = "application/apply-patch+yaml"
_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/json-patch+json": patches.json_patch,
    "application/merge-patch+json": patches.merge_patch,
    "application/strategic-merge-patch+json": patches.strategic_patch,
}
_CUSTOM_PATCHES = ("application/json-patch+json", "application/merge-patch+json", _APPLY)


class EmulatedApi:
    """Answers HTTP requests from a store. Runs in one event loop, which also owns the store."""

    def __init__(self, store: Store) -> None:
        self.store, self.gate = store, Gate()
        self.webhooks = Webhooks(store)
        self._streams = Streams(store, self.gate.watches)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serves one request, errors included."""
        return await self.gate.answer(request, self._serve)

    async def _serve(self, asked: Asked) -> web.StreamResponse:
        request, query = asked.raw, asked.query
        route = routes.parse(request.path)
        resource = self.store.resource(route.group, route.version, route.plural) if route else None
        if route is None or resource is None:
            return self._undirected(request.path)
        if asked.is_watch:
            return await self._streams.serve(asked, resource, route)
        warnings = await self._admit(request, resource, route, query, asked.body, asked.agent)
        response = self._directed(request, resource, route, query, asked.body, asked.agent)
        response.headers.extend([("Warning", f'299 - "{warning}"') for warning in warnings])
        return response

    def _undirected(self, path: str) -> web.Response:
        """Discovery and health."""
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        document = discovery.answer(path, self.store.resources())
        if document is not None:
            return _json(document)
        return web.Response(text="404 page not found\n", status=404)

    def _directed(
        self,
        request: web.BaseRequest,
        resource: Resource,
        route: routes.Route,
        query: Mapping[str, str],
        body: Any,
        agent: str,
    ) -> web.Response:
        """A verb on objects of a known type."""
        if route.subresource and route.subresource not in resource.subresources:
            return web.Response(text="404 page not found\n", status=404)
        if resource.namespaced and not route.namespace and (route.name or request.method != "GET"):
            raise errors.method_not_allowed()
        options = WriteOptions(
            manager=query.get("fieldManager", agent),
            dry_run=query.get("dryRun") == "All",
            strict=query.get("fieldValidation") == "Strict",
            force=is_true(query, "force"),
            subresource="" if route.subresource == "scale" else route.subresource,
        )
        if request.method == "GET":
            return self._read(request, resource, route, query)
        if request.method == "POST" and not route.name:
            return _json(self.store.create(resource, route.namespace, body, options), 201)
        if request.method == "PUT" and route.name:
            return self._put(resource, route, body, options)
        if request.method == "PATCH" and route.name:
            return self._patch(request.content_type, resource, route, query, body, options)
        if request.method == "DELETE" and not route.subresource:
            return self._delete(resource, route, query, body or {})
        raise errors.method_not_allowed()

    async def _admit(
        self,
        request: web.BaseRequest,
        resource: Resource,
        route: routes.Route,
        query: Mapping[str, str],
        body: Any,
        agent: str,
    ) -> list[str]:
        """Asks the webhooks about what a write would store, and returns their warnings; raises where one refuses."""
        operation, stored = OPERATIONS.get(request.method, ""), self.store.objects(resource.storage)
        old = stored.get((route.namespace, route.name)) if route.name else None
        if operation == "UPDATE" and old is None:
            operation = "CREATE"
        if not (hooks := self.webhooks.concerned(resource, route.subresource, operation)):
            return []
        new = None
        if operation != "DELETE":
            trial = self._directed(request, resource, route, {**query, "dryRun": "All"}, body, agent)
            new = json.loads(trial.text or "null")
        return await self.webhooks.admit(hooks, resource, operation, new, old)

    def _read(
        self, request: web.BaseRequest, resource: Resource, route: routes.Route, query: Mapping[str, str]
    ) -> web.Response:
        as_table = "as=Table" in request.headers.get("Accept", "")
        if route.name:
            obj = self.store.get(resource, route.namespace, route.name)
            if route.subresource == "scale":
                return _json(views.scale_of(obj))
            return _json(views.table_of(resource, [obj], self.store.revision) if as_table else obj)
        matches = selectors.both(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        limit, start = int(query.get("limit") or 0), query.get("continue", "")
        page = self.store.page(resource, route.namespace, matches, limit, start)
        if as_table:
            return _json(views.table_of(resource, page.items, page.revision))
        return _json(views.list_of(resource, page))

    def _put(self, resource: Resource, route: routes.Route, body: Any, options: WriteOptions) -> web.Response:
        if route.subresource != "scale":
            return _json(self.store.update(resource, route.namespace, route.name, body, options))
        obj = self.store.get(resource, route.namespace, route.name)
        changed = self.store.update(
            resource, route.namespace, route.name, views.with_replicas(obj, body or {}), options
        )
        return _json(views.scale_of(changed))

    def _patch(
        self,
        content_type: str,
        resource: Resource,
        route: routes.Route,
        query: Mapping[str, str],
        body: Any,
        options: WriteOptions,
    ) -> web.Response:
        accepted = _CUSTOM_PATCHES if resource.custom else (*_PATCHES, _APPLY)
        if content_type not in accepted:
            raise errors.unsupported_media_type(accepted)
        if content_type == _APPLY:
            if "fieldManager" not in query:
                raise errors.manager_required()
            obj, created = self.store.apply(resource, route.namespace, route.name, body, options)
            return _json(obj, 201 if created else 200)
        function = _PATCHES[content_type]
        if route.subresource == "scale":

            def scale(obj: Object) -> Object:
                return views.with_replicas(obj, function(views.scale_of(obj), body))

            return _json(views.scale_of(self.store.patch(resource, route.namespace, route.name, scale, options)))
        change = self.store.patch(resource, route.namespace, route.name, lambda obj: function(obj, body), options)
        return _json(change)

    def _delete(
        self, resource: Resource, route: routes.Route, query: Mapping[str, str], body: Mapping[str, Any]
    ) -> web.Response:
        grace = query.get("gracePeriodSeconds", body.get("gracePeriodSeconds"))
        wanted = body.get("preconditions") or {}
        options = DeleteOptions(
            uid=wanted.get("uid") or "",
            resource_version=wanted.get("resourceVersion") or "",
            grace_seconds=None if grace is None else int(grace),
            propagation=query.get("propagationPolicy") or body.get("propagationPolicy") or "Background",
            dry_run=query.get("dryRun") == "All" or "All" in (body.get("dryRun") or ()),
        )
        if route.name:
            return _json(self.store.collector.delete(resource, route.namespace, route.name, options))
        matches = selectors.both(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        page = self.store.page(resource, route.namespace, matches)
        for obj in page.items:
            meta = obj["metadata"]
            self.store.collector.delete(resource, meta.get("namespace", ""), meta["name"], options)
        return _json(views.list_of(resource, page))


class MockedApi(kmock.RawHandler):  # type: ignore[misc]  # kmock's types do not pass strict checks
    """kmock's handler with the emulated API behind it: whatever a test declares with kmock's DSL comes first.

    The API is not a kmock payload itself: kmock sends headers with the first chunk only, and a client must see a
    watch open before anything happens; and payloads that pick their own status share one record across requests.
    """

    def __init__(self, api: EmulatedApi) -> None:
        super().__init__()
        self._api = api

    async def __call__(self, raw_request: web.BaseRequest) -> web.StreamResponse:
        # kmock 0.8 fails to parse the list of namespaces, and keeps every request that it parses.
        if not self._payloads or raw_request.path == "/api/v1/namespaces":
            return await self._api.answer(raw_request)
        return await super().__call__(raw_request)  # type: ignore[no-any-return]

    async def _handle(self, request: Any) -> web.StreamResponse:
        try:
            return await super()._handle(request)  # type: ignore[no-any-return]
        except NotImplementedError:  # kmock's word for "no reaction is declared"
            return await self._api.answer(request._raw_request)


def _json(body: Any, status: int = 200) -> web.Response:
    return web.json_response(body, status=status)
