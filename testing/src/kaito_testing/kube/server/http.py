"""The HTTP layer of the emulated API: what a request asks for, and its answer. The rules are in `objects`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import kmock
from aiohttp import web

from kaito_testing.kube import errors
from kaito_testing.kube.objects import patches, selectors
from kaito_testing.kube.objects.options import DeleteOptions, WriteOptions
from kaito_testing.kube.objects.verbs import Verbs
from kaito_testing.kube.resources import Resource
from kaito_testing.kube.server import discovery, representations, routes, scales
from kaito_testing.kube.server.interceptor import ApiRequest, Interceptor
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
    """Answers HTTP requests from a store. It runs in one event loop, and nothing else may write to the store meanwhile.

    Attributes:
        verbs: What writes to the store.
        store: The store.
        interceptor: The log of the requests, and which are to fail.
        webhooks: Where admission webhooks answer.
    """

    def __init__(self, verbs: Verbs) -> None:
        self.verbs, self.store, self.interceptor = verbs, verbs.store, Interceptor()
        self.webhooks = Webhooks(self.store)
        self._streams = Streams(self.store, self.interceptor.watches)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serves one request, errors included."""
        return await self.interceptor.answer(request, self._serve)

    async def _serve(self, request: ApiRequest) -> web.StreamResponse:
        route = routes.parse(request.raw.path)
        resource = self.store.resource(route.group, route.version, route.plural) if route else None
        if route is None or resource is None:
            return self._other(request.raw.path)
        if request.is_watch:
            return await self._streams.serve(request, resource, route)
        warnings = await self._admit(request, resource, route)
        response = self._verb(request, request.query, resource, route)
        response.headers.extend([("Warning", f'299 - "{warning}"') for warning in warnings])
        return response

    def _other(self, path: str) -> web.Response:
        """Answers what is not about objects: discovery and health."""
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        document = discovery.answer(path, self.store.resources())
        if document is not None:
            return _json(document)
        return web.Response(text="404 page not found\n", status=404)

    def _verb(
        self, request: ApiRequest, query: Mapping[str, str], resource: Resource, route: routes.Route
    ) -> web.Response:
        """Does what a request for objects of a known type asks for."""
        raw, body = request.raw, request.body
        if route.subresource and route.subresource not in resource.subresources:
            return web.Response(text="404 page not found\n", status=404)
        if resource.namespaced and not route.namespace and (route.name or raw.method != "GET"):
            raise errors.method_not_allowed()
        options = WriteOptions(
            manager=query.get("fieldManager", request.agent),
            dry_run=query.get("dryRun") == "All",
            strict=query.get("fieldValidation") == "Strict",
            force=is_true(query, "force"),
            subresource=route.subresource,
        )
        if raw.method == "GET":
            return self._read(raw, resource, route, query)
        if raw.method == "POST" and not route.name:
            return _json(self.verbs.create(resource, route.namespace, body, options), 201)
        if raw.method == "PUT" and route.name:
            return self._put(resource, route, body, options)
        if raw.method == "PATCH" and route.name:
            return self._patch(raw.content_type, resource, route, query, body, options)
        if raw.method == "DELETE" and not route.subresource:
            return self._delete(resource, route, query, body or {})
        raise errors.method_not_allowed()

    async def _admit(self, request: ApiRequest, resource: Resource, route: routes.Route) -> list[str]:
        """Asks the webhooks about what a write would store, and returns their warnings; raises if one refuses."""
        operation, stored = OPERATIONS.get(request.raw.method, ""), self.store.objects(resource.storage)
        old = stored.get((route.namespace, route.name)) if route.name else None
        if operation == "UPDATE" and old is None:
            operation = "CREATE"
        if not (hooks := self.webhooks.matching(resource, route.subresource, operation)):
            return []
        new = None
        if operation != "DELETE":
            trial = self._verb(request, {**request.query, "dryRun": "All"}, resource, route)
            new = json.loads(trial.text or "null")
        return await self.webhooks.admit(hooks, resource, operation, new, old)

    def _read(
        self, request: web.BaseRequest, resource: Resource, route: routes.Route, query: Mapping[str, str]
    ) -> web.Response:
        as_table = "as=Table" in request.headers.get("Accept", "")
        if route.name:
            obj = self.store.get(resource, route.namespace, route.name)
            if route.subresource == "scale":
                return _json(scales.shown(resource, obj))
            return _json(representations.table_of(resource, [obj], self.store.revision) if as_table else obj)
        matches = selectors.both(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        limit, start = int(query.get("limit") or 0), query.get("continue", "")
        page = self.store.page(resource, route.namespace, matches, limit, start)
        if as_table:
            return _json(representations.table_of(resource, page.items, page.revision))
        return _json(representations.list_of(resource, page))

    def _put(self, resource: Resource, route: routes.Route, body: Any, options: WriteOptions) -> web.Response:
        if route.subresource != "scale":
            return _json(self.verbs.update(resource, route.namespace, route.name, body, options))
        obj = self.store.get(resource, route.namespace, route.name)
        scaled = scales.with_replicas(resource, obj, body or {})
        return _json(scales.shown(resource, self.verbs.update(resource, route.namespace, route.name, scaled, options)))

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
            obj, created = self.verbs.apply(resource, route.namespace, route.name, body, options)
            return _json(obj, 201 if created else 200)
        function = _PATCHES[content_type]
        if route.subresource == "scale":

            def scale(obj: Object) -> Object:
                return scales.with_replicas(resource, obj, function(scales.scale_of(resource, obj), body))

            changed = self.verbs.patch(resource, route.namespace, route.name, scale, options)
            return _json(scales.shown(resource, changed))
        change = self.verbs.patch(resource, route.namespace, route.name, lambda obj: function(obj, body), options)
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
            return _json(self.verbs.delete(resource, route.namespace, route.name, options))
        matches = selectors.both(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        page = self.store.page(resource, route.namespace, matches)
        for obj in page.items:
            meta = obj["metadata"]
            self.verbs.delete(resource, meta.get("namespace", ""), meta["name"], options)
        return _json(representations.list_of(resource, page))


class MockedApi(kmock.RawHandler):  # type: ignore[misc]  # kmock's types do not pass strict checks
    """kmock's handler with the emulated API behind it: reactions that a test declares with kmock come first.

    The API is not a kmock payload itself: kmock sends headers with the first chunk only, and a client must see a
    watch open before anything happens; and payloads that choose their own status share one record across requests.
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
        except NotImplementedError:  # kmock's way to say that no reaction is declared
            return await self._api.answer(request._raw_request)


def _json(body: Any, status: int = 200) -> web.Response:
    return web.json_response(body, status=status)
