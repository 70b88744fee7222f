"""Validating admission webhooks of the emulated API, called over real HTTPS before a write.

Services have no addresses here: `endpoints` says where one answers. Mutating webhooks are not emulated.
"""

from __future__ import annotations

import base64
import binascii
import ssl
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp

from kaito_testing.kube.errors import ApiError
from kaito_testing.kube.objects.store import Store
from kaito_testing.kube.resources import WEBHOOKS, Resource

__all__ = ["OPERATIONS", "Webhooks"]

Object = dict[str, Any]

#: Operations by HTTP method; a patch or apply of what is absent creates.
OPERATIONS = {"POST": "CREATE", "PUT": "UPDATE", "PATCH": "UPDATE", "DELETE": "DELETE"}


class Webhooks:
    """The webhooks that are configured in a store.

    Attributes:
        endpoints: (host, port) of a Service, by (namespace, name).
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.endpoints: dict[tuple[str, str], tuple[str, int]] = {}

    def matching(self, resource: Resource, subresource: str, operation: str) -> list[Object]:
        """The webhooks that want to be asked about a write."""
        return [hook for hook in self._all() if _matches(hook, resource, subresource, operation)]

    def _all(self) -> Iterator[Object]:
        for configuration in self._store.objects(WEBHOOKS.storage).values():
            yield from configuration.get("webhooks") or ()

    async def admit(
        self, hooks: list[Object], resource: Resource, operation: str, new: Object | None, old: Object | None
    ) -> list[str]:
        """Asks webhooks and returns their warnings.

        Raises:
            ApiError: One refuses; or one cannot be reached, and its failurePolicy is Fail.
        """
        warnings: list[str] = []
        for hook in hooks:
            try:
                response = await self._ask(hook, _review(resource, operation, new, old))
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, binascii.Error) as error:
                if hook.get("failurePolicy", "Fail") == "Ignore":
                    continue
                message = f'Internal error occurred: failed calling webhook "{hook["name"]}": {error!r}'
                raise ApiError(500, "InternalError", message) from error
            if not response["allowed"]:
                status = response.get("status") or {}
                message = f'admission webhook "{hook["name"]}" denied the request: {status.get("message", "")}'
                raise ApiError(
                    status.get("code", 403), status.get("reason", "Forbidden"), message, status.get("details")
                )
            warnings += response.get("warnings") or ()
        return warnings

    async def _ask(self, hook: Object, review: Object) -> Object:
        config = hook["clientConfig"]
        authorities = base64.b64decode(config.get("caBundle") or "").decode()
        context = ssl.create_default_context(cadata=authorities or None)
        service = config["service"]
        host, port = self.endpoints[service["namespace"], service["name"]]
        # The API server connects to the Service's address and asks for its name.
        name = f"{service['name']}.{service['namespace']}.svc"
        timeout = aiohttp.ClientTimeout(total=hook.get("timeoutSeconds", 10))
        url = f"https://{host}:{port}{service.get('path', '/')}"
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, json=review, ssl=context, server_hostname=name) as answer,
        ):
            answer.raise_for_status()
            response = (await answer.json())["response"]
        if response["uid"] != review["request"]["uid"]:
            raise ValueError(f"the response has the uid {response['uid']!r}, expected {review['request']['uid']!r}")
        return dict(response)


def _matches(hook: Mapping[str, Any], resource: Resource, subresource: str, operation: str) -> bool:
    wanted = f"{resource.plural}/{subresource}" if subresource else resource.plural
    return any(
        wanted in rule["resources"]
        and resource.group in rule["apiGroups"]
        and resource.version in rule["apiVersions"]
        and operation in rule["operations"]
        for rule in hook.get("rules") or ()
    )


def _review(resource: Resource, operation: str, new: Object | None, old: Object | None) -> Object:
    obj = new or old or {}
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    request = {
        "uid": str(uuid.uuid4()),
        "kind": kind,
        "resource": {"group": resource.group, "version": resource.version, "resource": resource.plural},
        "requestKind": kind,
        "name": obj.get("metadata", {}).get("name", ""),
        "namespace": obj.get("metadata", {}).get("namespace", ""),
        "operation": operation,
        "userInfo": {"username": "system:test"},
        "object": new,
        "oldObject": old,
        "dryRun": False,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
