"""A small synchronous client of any Kubernetes API, with which one test runs on the emulated and on a real server."""

from __future__ import annotations

import functools
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from kaito_core.api import ResourceType
from kaito_testing.kube.errors import ApiError

__all__ = ["Kind", "KubeClient"]

Object = dict[str, Any]
Objects = list[Object]  # the class below has a method named list
Known = list[tuple[str, Object]]
#: A kind of object: a name as for kubectl ("pods", "deploy", "workspaces.kaito.sh") or a type as plugins name it.
Kind = str | ResourceType

MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"

#: How often a request is repeated after 429 Too Many Requests, as servers answer in the first second of a CRD.
_RETRIES = 5


class KubeClient:
    """What tests do with a cluster.

    A `kind` is a name as for kubectl ("pods", "deploy", "workspaces.kaito.sh") or a `ResourceType`. Cluster-wide kinds
    ignore the namespace. Answers other than 2xx raise `ApiError` unless a method says otherwise.

    Args:
        url: The API server.
        token: Bearer token, "" for none.
        ca_file: Certificate authority of an https server; "" trusts any certificate.
        client_cert: Files with a client certificate and its key, ("", "") for none.
        has_gc: Whether dependents of deleted owners are collected.
        has_controllers: Whether Deployments and StatefulSets get pods, and pods get nodes.
        has_workloads: Whether there are kubelets too, so that pods run.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        ca_file: str = "",
        client_cert: tuple[str, str] = ("", ""),
        has_gc: bool = True,
        has_controllers: bool = True,
        has_workloads: bool = True,
    ) -> None:
        self.url, self.has_gc = url.rstrip("/"), has_gc
        self.has_controllers, self.has_workloads = has_controllers, has_workloads
        self._token, self._ca_file, self._client_cert = token, ca_file, client_cert
        self._known: dict[str, Known] = {}  # group version -> its resources

    def kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig with this client's rights, and returns its path."""
        cluster: Object = {"server": self.url}
        if self.url.startswith("https"):
            cluster |= {"certificate-authority": self._ca_file} if self._ca_file else {"insecure-skip-tls-verify": True}
        user: Object = {"token": self._token or "any"}
        if self._client_cert[0]:
            user = {"client-certificate": self._client_cert[0], "client-key": self._client_cert[1]}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    @property
    def authorization(self) -> dict[str, str]:
        """The headers that authenticate this client."""
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    @functools.cached_property
    def ssl_context(self) -> ssl.SSLContext | None:
        """TLS settings for an https server, None for another."""
        if not self.url.startswith("https"):
            return None
        context = ssl.create_default_context(cafile=self._ca_file or None)
        if not self._ca_file:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self._client_cert[0]:
            context.load_cert_chain(*self._client_cert)
        return context

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Sends one request and returns the JSON of the answer. After 429 with Retry-After it tries again.

        Raises:
            ApiError: The answer is not 2xx.
        """
        url = self.url + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        headers = {"Content-Type": content_type, "Accept": "application/json", "User-Agent": "kaito-testing/1"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method, headers={**headers, **self.authorization})
        for retries_left in reversed(range(_RETRIES + 1)):
            try:
                with urllib.request.urlopen(request, context=self.ssl_context, timeout=30) as answer:
                    return dict(json.load(answer))
            except urllib.error.HTTPError as error:
                refused, later = _error(error.code, error.read()), error.headers.get("Retry-After", "")
            if refused.code != 429 or not later.isdigit() or not retries_left:
                break
            time.sleep(int(later))
        raise refused

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Object | None:
        """Returns an object, None if it or its kind does not exist."""
        try:
            return self.request("GET", self._path(kind, namespace, name))
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def list(self, kind: Kind, namespace: str = "", labels: str = "") -> Objects:
        """Returns objects, none for a kind that does not exist.

        Args:
            kind: Their kind.
            namespace: Their namespace, "" for all.
            labels: A label selector, "" for all.
        """
        query = {"labelSelector": labels} if labels else None
        try:
            return list(self.request("GET", self._path(kind, namespace), query=query)["items"])
        except ApiError as error:
            if error.code == 404:
                return []
            raise

    def apply(self, manifest: Object, *, manager: str = "test", force: bool = True, subresource: str = "") -> Object:
        """Applies a manifest (server-side apply) and returns the object."""
        query = {"fieldManager": manager, "force": str(force).lower()}
        path = self._address(manifest) + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", path, manifest, query=query, content_type=APPLY)

    def apply_file(self, path: Path, *, manager: str = "test") -> Objects:
        """Applies each document of a YAML file and returns the objects."""
        documents = yaml.safe_load_all(path.read_text())
        return [self.apply(document, manager=manager) for document in documents if document]

    def create(self, manifest: Object) -> Object:
        """Creates an object and returns it as stored."""
        return self.request("POST", self._address(manifest).rsplit("/", 1)[0], manifest)

    def patch(
        self,
        kind: Kind,
        name: str,
        patch: Any,
        namespace: str = "default",
        *,
        content_type: str = MERGE,
        subresource: str = "",
    ) -> Object:
        """Patches an object and returns it; `content_type` says which kind of patch it is."""
        path = self._path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", path, patch, content_type=content_type)

    def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "default",
        *,
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> bool:
        """Deletes an object; False if it does not exist."""
        query = {"propagationPolicy": propagation}
        query |= {"gracePeriodSeconds": str(grace_seconds)} if grace_seconds is not None else {}
        try:
            self.request("DELETE", self._path(kind, namespace, name), query=query)
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        return True

    def add_node(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        *,
        gpus: int = 1,
        ready: bool = True,
        gpu_resource: str = "nvidia.com/gpu",
    ) -> Object:
        """Adds a node without a kubelet, or changes one, and returns it."""
        all_labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **(labels or {})}
        self.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": all_labels}})
        amounts = {"cpu": "16", "memory": "128Gi", "ephemeral-storage": "1Ti", "pods": "110", gpu_resource: str(gpus)}
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "reason": "KubeletReady" if ready else "KubeletNotReady",
        }
        status = {"capacity": amounts, "allocatable": amounts, "conditions": [condition]}
        node = self.patch("nodes", name, {"status": status}, "", content_type=STRATEGIC, subresource="status")
        if ready and node["spec"].get("taints"):  # a new node is tainted until its first heartbeat
            node = self.patch("nodes", name, {"spec": {"taints": None}}, "")
        return node

    def wait(self, what: str, condition: Callable[[], Any], timeout_seconds: float = 20.0) -> Any:
        """Calls `condition` until its result is true, and returns the result.

        Raises:
            TimeoutError: That takes longer than `timeout_seconds`; the message names `what`.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            result = condition()
            if result:
                return result
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {timeout_seconds} s for: {what}")
            time.sleep(0.02)

    # Addresses

    def _address(self, manifest: Object) -> str:
        group_version, kind = manifest["apiVersion"], manifest["kind"]
        for again in (False, True):
            for _, resource in self._resources(group_version, again=again):
                if resource["kind"] == kind and "/" not in resource["name"]:
                    meta = manifest["metadata"]
                    namespace = meta.get("namespace", "default") if resource["namespaced"] else ""
                    return _join(group_version, namespace, resource["name"], meta.get("name", ""))
        raise ApiError(404, "NotFound", f"the server has no {kind} in {group_version}")

    def _path(self, kind: Kind, namespace: str, name: str = "") -> str:
        if isinstance(kind, ResourceType):
            return _join(kind.api_version, namespace if kind.namespaced else "", kind.plural, name)
        plain, _, group = kind.partition(".")
        for again in (False, True):
            for group_version, resource in self._everything(group, again=again):
                names = (resource["name"], resource["kind"], resource["singularName"], *resource.get("shortNames", ()))
                if plain in names:
                    place = namespace if resource["namespaced"] else ""
                    return _join(group_version, place, resource["name"], name)
        raise ApiError(404, "NotFound", f"the server has no resource type {kind!r}")

    def _everything(self, group: str, *, again: bool) -> Known:
        if again:
            self._known.clear()
        found = self._resources("v1", again=again) if not group else []
        if "" not in self._known:
            groups = self.request("GET", "/apis")["groups"]
            self._known[""] = [(item["name"], item["preferredVersion"]) for item in groups]
        for name, preferred in self._known[""]:
            if group in ("", name):
                found = found + self._resources(preferred["groupVersion"], again=False)
        return [(version, resource) for version, resource in found if "/" not in resource["name"]]

    def _resources(self, group_version: str, *, again: bool) -> Known:
        if again or group_version not in self._known:
            root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
            try:
                found = self.request("GET", root)["resources"]
            except ApiError as error:
                if error.code != 404:
                    raise
                return []
            self._known[group_version] = [(group_version, resource) for resource in found]
        return self._known[group_version]


def _join(group_version: str, namespace: str, plural: str, name: str) -> str:
    root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
    place = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{place}/{plural}" + (f"/{name}" if name else "")


def _error(code: int, raw: bytes) -> ApiError:
    try:
        status = json.loads(raw)
        return ApiError(code, status.get("reason", ""), status.get("message", ""), status.get("details"))
    except (ValueError, AttributeError):
        return ApiError(code, "", raw.decode(errors="replace"))
