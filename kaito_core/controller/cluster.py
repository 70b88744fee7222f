"""The Kubernetes API: the only importer of the client. Verbs on plain objects, reads from the watch caches.

What is written and when is not decided here.
"""

import builtins
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config as client_config
from kubernetes.aio.client import ApiClient, Configuration

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workload import MANAGER
from kaito_core.controller.cache import Cache, Change, Watched
from kaito_core.errors import ClusterError, ConfigError

__all__ = ["Connection", "KubernetesCluster", "Listing", "connect", "identity"]

_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_PAGE = 500
_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API is and who we are, in terms of files and strings, for clients of another make."""

    server: str
    token: str
    ca_file: str | None
    certificate_file: str | None
    key_file: str | None
    insecure: bool
    proxy: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind at one time, and the resource version of that time."""

    items: tuple[KubeObject, ...]
    version: int


async def _configuration(kubeconfig: str | None) -> Configuration:
    """Returns the client's configuration: of the file, else of the pod that we run in, else of the user's default.

    Raises:
        ConfigError: None of them can be used.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None:
            try:
                client_config.load_incluster_config(client_configuration=configuration)
                return configuration
            except client_config.ConfigException:
                pass  # not in a pod
        await client_config.load_kube_config(
            config_file=kubeconfig, client_configuration=configuration, persist_config=False
        )
    except (client_config.ConfigException, OSError) as error:
        where = kubeconfig or "neither a service account nor $KUBECONFIG or ~/.kube/config"
        raise ConfigError(f"no cluster to connect to: {where}: {error}") from error
    return configuration


async def connect(cache: Cache, types: Iterable[ResourceType], kubeconfig: str | None = None) -> "KubernetesCluster":
    """Returns the cluster of a kubeconfig or of the pod that we run in; nothing is sent yet.

    Args:
        cache: Where reads are answered from, where it can.
        types: Kinds whose manifests may be applied without asking the API for their plural.
        kubeconfig: Path; None for the pod's service account or the user's default.

    Raises:
        ConfigError: There is no usable configuration.
    """
    return KubernetesCluster(await _configuration(kubeconfig), cache, types)


class KubernetesCluster:
    """Implements `kaito_core.api.Cluster`, and what the operator needs besides."""

    def __init__(self, configuration: Configuration, cache: Cache, types: Iterable[ResourceType] = ()) -> None:
        self.cache = cache
        #: Called where the answer to a write shows that others have written too.
        self.on_change: Callable[[Change], None] = lambda change: None
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._client.user_agent = f"{MANAGER}-operator"
        self._types = {(resource.api_version, resource.kind): resource for resource in types}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def connection(self) -> Connection:
        """Returns how to connect; tokens that expire are read anew."""
        key = await self._configuration.get_api_key_with_prefix("BearerToken") or ""
        return Connection(
            server=self._configuration.host,
            token=key.split(" ", 1)[-1].strip(),
            ca_file=self._configuration.ssl_ca_cert,
            certificate_file=self._configuration.cert_file,
            key_file=self._configuration.key_file,
            insecure=not self._configuration.verify_ssl,
            proxy=self._configuration.proxy,
        )

    async def get(self, resource: ResourceType, name: str, namespace: str = "") -> KubeObject | None:
        """Returns an object, from the cache where it is there; None where it or its resource type is absent."""
        cached = self.cache.get(resource, name, namespace)
        if cached is not None or self.cache.is_complete(resource):
            return cached
        try:
            return await self._send("GET", _path(resource, namespace, name))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, resource: ResourceType, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[KubeObject]:
        """Returns the objects with all the labels; none for an absent resource type."""
        if self.cache.answers(resource, labels):
            return self.cache.list(resource, namespace, labels)
        selector = ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))
        return (await self.fetch(resource, namespace, selector)).items

    async def fetch(self, resource: ResourceType, namespace: str = "", selector: str = "") -> Listing:
        """Returns the objects that a label selector matches, from the API itself; none for an absent type."""
        items: list[KubeObject] = []
        query = {"limit": str(_PAGE), **({"labelSelector": selector} if selector else {})}
        while True:
            try:
                page = await self._send("GET", _path(resource, namespace), query=query)
            except ClusterError as error:
                if error.status == 404:
                    return Listing((), 0)
                raise
            # Items of a list leave out what the list says once.
            items += [{"apiVersion": resource.api_version, "kind": resource.kind, **item} for item in page["items"]]
            metadata = page.get("metadata", {})
            if not metadata.get("continue"):
                version = str(metadata.get("resourceVersion", ""))
                return Listing(tuple(items), int(version) if version.isdigit() else 0)
            query = {**query, "continue": metadata["continue"]}

    async def refresh(self, watched: Watched, selector: str, namespaces: Sequence[str]) -> builtins.list[Change]:
        """Lists a watched kind anew and returns how the cache differed; a watch does not tell all that it missed."""
        changes: list[Change] = []
        for namespace in namespaces if watched.resource.namespaced and namespaces else ("",):
            listing = await self.fetch(watched.resource, namespace, selector if watched.labelled else "")
            # An absent type has no resource version: nothing of it can be newer than its absence.
            version = listing.version or 1 << 63
            changes += self.cache.replace(watched.resource, listing.items, version, namespace)
        return changes

    async def apply(self, manifest: KubeObject) -> KubeObject:
        """Applies a manifest on the server, as the field manager `kaito`, and returns the object."""
        return await self._apply(manifest)

    async def apply_status(self, document: KubeObject, status: Mapping[str, Any]) -> KubeObject:
        """Applies the status of an object, if it still is the one that `document` is."""
        return await self._apply({**identity(document), "status": dict(status)}, "status")

    async def _apply(self, manifest: KubeObject, subresource: str = "") -> KubeObject:
        resource = await self._resource(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        path = _path(resource, metadata.get("namespace", ""), metadata["name"], subresource)
        query = {"fieldManager": MANAGER, "force": "true"}
        answer = await self._send("PATCH", path, query=query, body=manifest, content_type=_APPLY)
        return self._keep(resource, answer, wrote=subresource)

    async def delete(self, resource: ResourceType, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """Deletes an object, only the one with `uid` where given; False where it or its type was absent already."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._send("DELETE", _path(resource, namespace, name), body=options)
        except ClusterError as error:
            if error.status != 404:
                raise
            if cached := self.cache.get(resource, name, namespace):
                self.cache.remove(resource, cached, gone=True)
            return False
        return True  # what came of it is for the watch to tell, which wakes whoever waits for it

    async def annotate(
        self, resource: ResourceType, name: str, namespace: str, uid: str, annotations: Mapping[str, str]
    ) -> None:
        """Sets annotations of the object with that uid."""
        patch = {"metadata": {"uid": uid, "annotations": dict(annotations)}}
        query = {"fieldManager": MANAGER}
        path = _path(resource, namespace, name)
        self._keep(resource, await self._send("PATCH", path, query=query, body=patch, content_type=_MERGE))

    async def add_ephemeral_container(
        self, pods: ResourceType, name: str, namespace: str, uid: str, container: KubeObject
    ) -> None:
        """Adds an ephemeral container to the running pod with that uid; one of the same name stays as it is."""
        # Server-side apply would take the containers that others added off the list; merging by name does not.
        patch = {"metadata": {"uid": uid}, "spec": {"ephemeralContainers": [container]}}
        path = _path(pods, namespace, name, "ephemeralcontainers")
        query = {"fieldManager": MANAGER}
        self._keep(pods, await self._send("PATCH", path, query=query, body=patch, content_type=_STRATEGIC))

    async def create(self, resource: ResourceType, manifest: KubeObject) -> KubeObject:
        """Creates an object."""
        path = _path(resource, manifest["metadata"].get("namespace", ""))
        return await self._send("POST", path, query={"fieldManager": MANAGER}, body=manifest)

    async def replace(self, resource: ResourceType, obj: KubeObject) -> KubeObject:
        """Replaces an object, if it still has the resource version of `obj`."""
        metadata = obj["metadata"]
        path = _path(resource, metadata.get("namespace", ""), metadata["name"])
        return await self._send("PUT", path, query={"fieldManager": MANAGER}, body=obj)

    def _keep(self, resource: ResourceType, obj: KubeObject, *, wrote: str = "") -> KubeObject:
        """Takes in the answer to a write: the next pass must see it, though the watch may not have told yet.

        What others wrote just before is in the answer too, and is no news any more when the watch tells it.
        """
        change = self.cache.put(resource, obj)
        if change is not None and change.old is not None and _apart(change.old, wrote) != _apart(obj, wrote):
            self.on_change(change)
        return obj

    async def _resource(self, api_version: str, kind: str) -> ResourceType:
        if (api_version, kind) not in self._types:
            prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            group, _, version = api_version.rpartition("/")
            for found in (await self._send("GET", prefix))["resources"]:
                if "/" not in found["name"]:
                    resource = ResourceType(group, version, found["name"], found["kind"], found["namespaced"])
                    self._types.setdefault((api_version, found["kind"]), resource)
        if (api_version, kind) not in self._types:
            raise ClusterError(f"the cluster has no {kind} in {api_version}", status=404, api_reason="NotFound")
        return self._types[api_version, kind]

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: KubeObject | None = None,
        content_type: str = _JSON,
    ) -> KubeObject:
        """Returns the JSON of an answer.

        Raises:
            ClusterError: The answer is an error, or there is none.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {"Content-Type": content_type, "Accept": _JSON}
        try:
            call = await self._client.param_serialize(
                method, target, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = await self._client.call_api(*call, _request_timeout=_TIMEOUT)
            text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterError(f"{method} {path}: {type(error).__name__}: {error}") from error
        if response.status >= 400:
            raise _failure(method, path, response.status, text)
        try:
            return dict(json.loads(text))
        except ValueError as error:
            message = f"{method} {path}: the answer is no JSON object: {text[:200]!r}"
            raise ClusterError(message, status=response.status) from error


def _apart(obj: KubeObject, field: str) -> KubeObject:
    """Returns an object without one field and without what every write changes."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    return {**{key: value for key, value in obj.items() if key != field}, "metadata": metadata}


def identity(document: KubeObject) -> KubeObject:
    """Returns what names exactly this object; applied with its uid, one that is gone is not created again."""
    metadata = document["metadata"]
    named = {key: metadata[key] for key in ("name", "namespace", "uid") if metadata.get(key)}
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": named}


def _path(resource: ResourceType, namespace: str = "", name: str = "", subresource: str = "") -> str:
    parts = ["apis", resource.group, resource.version] if resource.group else ["api", resource.version]
    if namespace and resource.namespaced:
        parts += ["namespaces", namespace]
    parts += [part for part in (resource.plural, name, subresource) if part]
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _failure(method: str, path: str, status: int, text: bytes) -> ClusterError:
    try:
        answer = json.loads(text)
        message, reason = str(answer["message"]), str(answer.get("reason", ""))
    except (ValueError, TypeError, KeyError):
        message, reason = text.decode(errors="replace").strip()[:200] or "no reason given", ""
    return ClusterError(f"{method} {path}: {message} ({status})", status=status, api_reason=reason)
