"""The Kubernetes API: the only importer of the client. Verbs on plain objects, reads from the watch caches.

What is written and when is not decided here.
"""

import asyncio
import builtins
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config as client_config
from kubernetes.aio.client import ApiClient, Configuration

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workload import MANAGER
from kaito_core.controller.watch.cache import Cache, Change, Watched
from kaito_core.errors import ClusterError, ConfigError

__all__ = ["Connection", "KubernetesCluster", "Listing", "Write", "connect", "identity"]

log = logging.getLogger(__name__)

_JSON = "application/json"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_PAGE = 500
_TIMEOUT_SECONDS, _CONNECT_SECONDS, _PROBE_SECONDS = 60.0, 10.0, 3.0
#: An API that is too busy says when to come back; it is obeyed this often, and for no longer than this each time.
_RETRIES, _LONGEST_RETRY_SECONDS = 4, 30.0


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


@dataclass(frozen=True, slots=True)
class Write:
    """An attempt to write. Attributes: verb: as RBAC has it. status: HTTP status, 0 for no answer."""

    verb: str
    resource: ResourceType
    subresource: str
    status: int


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


async def connect(
    cache: Cache,
    types: Iterable[ResourceType],
    kubeconfig: str | None = None,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> "KubernetesCluster":
    """Returns the cluster of a kubeconfig or of the pod that we run in; nothing is sent yet.

    Args:
        cache: Where reads are answered from, where it can.
        types: Kinds whose manifests may be applied without asking the API for their plural.
        kubeconfig: Path; None for the pod's service account or the user's default.
        timeout_seconds: How long an answer is waited for.

    Raises:
        ConfigError: There is no usable configuration.
    """
    configuration = await _configuration(kubeconfig)
    configuration.proxy = configuration.proxy or _proxy(configuration.host)
    return KubernetesCluster(configuration, cache, types, timeout_seconds)


def _proxy(server: str) -> str | None:
    """Returns the proxy that the environment names for a server."""
    url = urlsplit(server)
    return None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)


class KubernetesCluster:
    """Implements `kaito_core.api.Cluster`, and what the operator needs besides."""

    def __init__(
        self,
        configuration: Configuration,
        cache: Cache,
        types: Iterable[ResourceType] = (),
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self.cache = cache
        #: Called where the answer to a write shows that others have written too.
        self.on_change: Callable[[Change], None] = lambda change: None
        #: Called after each attempt to write, those to the Lease and those that are repeated included.
        self.on_write: Callable[[Write], None] = lambda write: None
        #: Called where a type that should be watched is not served.
        self.on_absent: Callable[[ResourceType], None] = lambda resource: None
        #: Asked before each write but those to the Lease: one that does not lead any more must not write.
        self.may_write: Callable[[], bool] = lambda: True
        # aiohttp would look for proxies and for a netrc anew before each request, each time in a thread.
        configuration.client_session_kwargs = {"trust_env": False}
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._client.user_agent = f"{MANAGER}-operator"
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, sock_connect=min(_CONNECT_SECONDS, timeout_seconds)
        )
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

    async def fetch(
        self, resource: ResourceType, namespace: str = "", selector: str = "", *, fields: str = ""
    ) -> Listing:
        """Returns the objects that both selectors match, from the API itself; none for an absent type.

        Args:
            resource: Their type.
            namespace: Theirs; "" for all.
            selector: Of labels.
            fields: Selector of fields.
        """
        items: list[KubeObject] = []
        selectors = {"labelSelector": selector, "fieldSelector": fields}
        query = {"limit": str(_PAGE), **{key: value for key, value in selectors.items() if value}}
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
            if not listing.version:
                self.on_absent(watched.resource)
            # An absent type has no resource version: nothing of it can be newer than its absence.
            version = listing.version or 1 << 63
            changes += self.cache.replace(watched.resource, listing.items, version, namespace)
        return changes

    async def why_silent(self) -> str:
        """Returns why the API cannot be reached, "" where it answers."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._send("GET", "/version")
        except TimeoutError:
            return f"no answer within {_PROBE_SECONDS:g} seconds"
        except ClusterError as error:
            return str(error) if error.status in (0, 401) or error.status >= 500 else ""
        return ""

    async def apply(self, manifest: KubeObject) -> KubeObject:
        """Applies a manifest on the server, as the field manager `kaito`, and returns the object."""
        return await self._apply(manifest)

    async def apply_status(self, document: KubeObject, status: Mapping[str, Any]) -> KubeObject:
        """Applies the status of an object, if it still is the one that `document` is."""
        return await self._apply({**identity(document), "status": dict(status)}, "status")

    async def _apply(self, manifest: KubeObject, subresource: str = "") -> KubeObject:
        resource = await self._resource(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace", "")
        before = self.cache.get(resource, name, namespace)
        query = {"force": "true"}
        status, answer = await self._write(
            _Call("PATCH", "patch", resource, namespace, name, subresource, query, _APPLY), manifest
        )
        changed = before is None or _version(before) != _version(answer)
        if not subresource and changed:
            _tell("Create" if status == 201 else "Change", resource, name, "Missing" if status == 201 else "Differs")
        return self._keep(resource, answer, wrote=subresource)

    async def delete(self, resource: ResourceType, name: str, namespace: str = "", *, uid: str = "") -> bool:
        """Deletes an object, only the one with `uid` where given; False where it or its type was absent already."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._write(_Call("DELETE", "delete", resource, namespace, name), options)
        except ClusterError as error:
            if error.status != 404:
                raise
            if cached := self.cache.get(resource, name, namespace):
                self.cache.remove(resource, cached, gone=True)
            return False
        _tell("Delete", resource, name, "NotNeeded")
        return True  # what came of it is for the watch to tell, which wakes whoever waits for it

    async def annotate(
        self, resource: ResourceType, name: str, namespace: str, uid: str, annotations: Mapping[str, str]
    ) -> None:
        """Sets annotations of the object with that uid."""
        patch = {"metadata": {"uid": uid, "annotations": dict(annotations)}}
        call = _Call("PATCH", "patch", resource, namespace, name, content_type=_MERGE)
        self._keep(resource, (await self._write(call, patch))[1])
        _tell("Annotate", resource, name, "ConfigurationChanged")

    async def add_ephemeral_container(
        self, pods: ResourceType, name: str, namespace: str, uid: str, container: KubeObject
    ) -> None:
        """Adds an ephemeral container to the running pod with that uid; one of the same name stays as it is."""
        # Server-side apply would take the containers that others added off the list; merging by name does not.
        patch = {"metadata": {"uid": uid}, "spec": {"ephemeralContainers": [container]}}
        call = _Call("PATCH", "patch", pods, namespace, name, "ephemeralcontainers", content_type=_STRATEGIC)
        self._keep(pods, (await self._write(call, patch))[1])
        _tell("AddContainer", pods, name, "AdapterAdded")

    async def create(self, resource: ResourceType, manifest: KubeObject, *, lease: bool = False) -> KubeObject:
        """Creates an object; with `lease` it is the Lease itself, which is written by those who do not lead too."""
        call = _Call("POST", "create", resource, manifest["metadata"].get("namespace", ""))
        return (await self._write(call, manifest, fenced=not lease))[1]

    async def replace(self, resource: ResourceType, obj: KubeObject, *, lease: bool = False) -> KubeObject:
        """Replaces an object, if it still has the resource version of `obj`; `lease` as for `create`."""
        metadata = obj["metadata"]
        call = _Call("PUT", "update", resource, metadata.get("namespace", ""), metadata["name"])
        return (await self._write(call, obj, fenced=not lease))[1]

    async def _write(self, call: "_Call", body: KubeObject, *, fenced: bool = True) -> tuple[int, KubeObject]:
        """Returns the status and the document of the answer to a write.

        Raises:
            ClusterError: As for any request, and where another operator may lead by now.
        """
        path = _path(call.resource, call.namespace, call.name, call.subresource)
        if fenced and not self.may_write():
            raise ClusterError(f"{call.method} {path}: not sent: this operator does not lead any more")
        query = {**call.query, **({"fieldManager": MANAGER} if call.method != "DELETE" else {})}

        def attempted(status: int) -> None:
            self.on_write(Write(call.verb, call.resource, call.subresource, status))

        return await self._exchange(call.method, path, query, body, call.content_type, attempted)

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

    async def _send(self, method: str, path: str, *, query: Mapping[str, str] | None = None) -> KubeObject:
        """Returns the JSON of an answer; raises as `_exchange` does."""
        return (await self._exchange(method, path, query or {}, None, _JSON))[1]

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: KubeObject | None,
        content_type: str,
        attempted: Callable[[int], None] = lambda status: None,
    ) -> tuple[int, KubeObject]:
        """Returns the status and the JSON of an answer; `attempted` is told the status of each attempt, 0 for none.

        Raises:
            ClusterError: The answer is an error, or there is none.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {"Content-Type": content_type, "Accept": _JSON}
        for retries in range(_RETRIES + 1):
            status = 0
            try:
                call = await self._client.param_serialize(
                    method, target, header_params=headers, body=body, auth_settings=["BearerToken"]
                )
                response = await self._client.call_api(*call, _request_timeout=self._timeout)
                text = await response.read()
                status = response.status
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise ClusterError(f"{method} {path}: {type(error).__name__}: {error}") from error
            finally:
                attempted(status)
            wait = _retry_after(status, response.getheader("Retry-After", ""))
            if wait is None or retries == _RETRIES:
                break
            log.debug("%s %s: the API asks to come back in %g seconds", method, path, wait)
            await asyncio.sleep(wait)
        if status >= 400:
            raise _failure(method, path, status, text)
        try:
            return status, dict(json.loads(text))
        except ValueError as error:
            message = f"{method} {path}: the answer is no JSON object: {text[:200]!r}"
            raise ClusterError(message, status=status) from error


@dataclass(frozen=True, slots=True)
class _Call:
    """A write that is to be sent."""

    method: str
    verb: str
    resource: ResourceType
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _JSON


def _tell(action: str, resource: ResourceType, name: str, reason: str) -> None:
    """Logs a change: one line each."""
    thing = f"{resource.kind}/{name}"
    log.info("%s %s: %s", action, thing, reason, extra={"action": action, "object": thing, "reason": reason})


def _retry_after(status: int, header: str) -> float | None:
    """Returns in how many seconds a busy API wants to be asked again; None where it does not say, or it is too long."""
    if status not in (429, 503) or not header.isdigit() or int(header) > _LONGEST_RETRY_SECONDS:
        return None
    return float(header)


def _version(obj: KubeObject) -> str:
    return str(obj["metadata"].get("resourceVersion", ""))


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
