"""The emulated API as its clients see it: kopf, kubernetes.aio, kubectl; faults, logs and watches over HTTP."""

from __future__ import annotations

import asyncio
import http.server
import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

import kopf
import pytest
from kubernetes import aio
from plain_requests import call, lines

from kaito_core.api import NODES, ResourceType
from kaito_testing.kube.errors import ApiError
from kaito_testing.world.client import KubeClient
from kaito_testing.world.cluster import FakeCluster

Object = dict[str, Any]

CM: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}
OPEN: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
CRD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "things.test.example"},
    "spec": {
        "group": "test.example",
        "scope": "Namespaced",
        "names": {"kind": "Thing", "plural": "things"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": OPEN, "status": OPEN}}},
            }
        ],
    },
}


def thing(size: int) -> Object:
    return {"apiVersion": "test.example/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"size": size}}


def test_a_kopf_operator_sees_objects_come_change_and_go_across_broken_watches(kaito_cluster: FakeCluster) -> None:
    registry, seen = kopf.OperatorRegistry(), []
    for event in ("create", "update", "delete"):

        def handler(name: str, event: str = event, **_: Any) -> None:
            seen.append((event, name))

        getattr(kopf.on, event)("test.example", "v1", "things", registry=registry, id=event)(handler)

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=kaito_cluster.url)

    kaito_cluster.apply(CRD)
    stop, ready = threading.Event(), threading.Event()
    operator = kopf.operator(registry=registry, clusterwide=True, standalone=True, stop_flag=stop, ready_flag=ready)
    thread = threading.Thread(target=lambda: asyncio.run(operator))
    thread.start()
    try:
        assert ready.wait(20)
        kaito_cluster.apply(thing(1))
        kaito_cluster.wait("create", lambda: ("create", "t") in seen)
        kaito_cluster.drop_watches()
        kaito_cluster.apply(thing(2))
        kaito_cluster.wait("update", lambda: ("update", "t") in seen)
        kaito_cluster.expire_watches()
        kaito_cluster.delete("things.test.example", "t")
        kaito_cluster.wait("gone", lambda: kaito_cluster.get("things.test.example", "t") is None)
    finally:
        stop.set()
        thread.join()
    assert seen == [("create", "t"), ("update", "t"), ("delete", "t")]


async def _apply_with_aio(url: str) -> Any:
    async with aio.client.ApiClient(aio.client.Configuration(host=url)) as api:
        kind = "application/apply-patch+yaml"
        return await aio.client.CoreV1Api(api).patch_namespaced_config_map(
            "a", "default", CM, field_manager="kaito", force=True, _content_type=kind
        )


def test_kubernetes_aio_applies_and_a_second_time_changes_nothing(kaito_cluster: FakeCluster) -> None:
    first = asyncio.run(_apply_with_aio(kaito_cluster.url))
    second = asyncio.run(_apply_with_aio(kaito_cluster.url))
    assert first.metadata.managed_fields[0].manager == "kaito"
    assert first.metadata.resource_version == second.metadata.resource_version
    assert [record.status for record in kaito_cluster.writes(manager="kaito")] == [201, 200]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_applies_and_reads(kaito_cluster: FakeCluster, tmp_path: Path) -> None:
    config = kaito_cluster.kubeconfig(tmp_path / "config")
    kaito_cluster.apply(CRD)

    def kubectl(*arguments: str, stdin: str = "") -> str:
        command = ["kubectl", "--kubeconfig", str(config), "--cache-dir", str(tmp_path / "cache"), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True, timeout=60).stdout

    for _ in range(2):
        assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(thing(3)))
    assert kubectl("get", "things", "t", "-o", "jsonpath={.spec.size}") == "3"
    assert kubectl("get", "things").splitlines()[0].split() == ["NAME", "AGE"]
    assert "deleted" in kubectl("delete", "thing", "t")


def test_kinds_are_named_as_for_kubectl_or_by_their_type(kaito_cluster: FakeCluster) -> None:
    config_maps = ResourceType("", "v1", "configmaps", "ConfigMap")
    kaito_cluster.apply(CM)
    found = kaito_cluster.get("configmaps", "a")
    assert found is not None
    assert kaito_cluster.get("cm", "a") == kaito_cluster.get(config_maps, "a") == found
    kaito_cluster.add_node("n")
    assert [node["metadata"]["name"] for node in kaito_cluster.list(NODES, "default")] == ["n"], (
        "nodes have no namespace"
    )
    assert kaito_cluster.patch(config_maps, "a", {"data": {"k": "2"}})["data"] == {"k": "2"}
    assert kaito_cluster.delete(config_maps, "a")
    assert kaito_cluster.get(config_maps, "a") is None
    assert kaito_cluster.get(ResourceType("absent.example", "v1", "things", "Thing"), "a") is None


async def _read_back_in_a_coroutine() -> Object | None:
    async with FakeCluster() as cluster:
        cluster.apply(CM)
        return cluster.get("configmaps", "a")


def test_a_cluster_runs_inside_a_coroutine_too() -> None:
    found = asyncio.run(_read_back_in_a_coroutine())
    assert found is not None
    assert found["data"] == {"k": "1"}


def test_a_watch_replays_from_a_version_and_ends_in_time(kaito_cluster: FakeCluster) -> None:
    version = kaito_cluster.apply(CM)["metadata"]["resourceVersion"]
    kaito_cluster.apply({**CM, "data": {"k": "2"}})
    kaito_cluster.delete("configmaps", "a")
    query = f"watch=1&timeoutSeconds=0.1&resourceVersion={version}"
    events = lines(f"{kaito_cluster.url}/api/v1/namespaces/default/configmaps?{query}")
    assert [event["type"] for event in events] == ["MODIFIED", "DELETED"]


def test_the_watches_of_a_removed_type_end(kaito_cluster: FakeCluster) -> None:
    kaito_cluster.apply(CRD)
    kaito_cluster.apply(thing(1))
    url = f"{kaito_cluster.url}/apis/test.example/v1/things?watch=1&timeoutSeconds=60"
    found: list[Object] = []
    thread = threading.Thread(target=lambda: found.extend(lines(url)))
    thread.start()
    kaito_cluster.wait("the watch", lambda: kaito_cluster.open_watches)
    kaito_cluster.delete("customresourcedefinitions", "things.test.example", "")
    thread.join(10)
    assert [event["type"] for event in found] == ["ADDED", "DELETED"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        lines(url)


def test_a_watch_without_a_version_starts_with_what_is_there(kaito_cluster: FakeCluster) -> None:
    kaito_cluster.apply(CM)
    query = "watch=1&timeoutSeconds=0.1&sendInitialEvents=true&allowWatchBookmarks=true&fieldSelector=metadata.name=a"
    first, last, *_ = lines(f"{kaito_cluster.url}/api/v1/configmaps?{query}")
    assert (first["type"], first["object"]["data"]) == ("ADDED", {"k": "1"})
    assert (last["type"], last["object"]["metadata"]["annotations"]) == (
        "BOOKMARK",
        {"k8s.io/initial-events-end": "true"},
    )


def test_reactions_declared_with_kmock_come_first(kaito_cluster: FakeCluster) -> None:
    kaito_cluster.mock["get /quota"] << {"limit": 1}
    assert call(f"{kaito_cluster.url}/quota") == {"limit": 1}
    assert call(f"{kaito_cluster.url}/api/v1/namespaces/default")["kind"] == "Namespace"
    assert call(f"{kaito_cluster.url}/api/v1/namespaces")["kind"] == "NamespaceList"


async def _watch_with_aio(url: str, version: str) -> list[str]:
    async with aio.client.ApiClient(aio.client.Configuration(host=url)) as api, aio.watch.Watch() as watch:
        listing = aio.client.CoreV1Api(api).list_namespaced_config_map
        stream = watch.stream(listing, "default", resource_version=version, timeout_seconds=1)
        return [f"{event['type']} {event['object'].data}" async for event in stream]


def test_kubernetes_aio_watches(kaito_cluster: FakeCluster) -> None:
    version = kaito_cluster.apply(CM)["metadata"]["resourceVersion"]
    kaito_cluster.apply({**CM, "data": {"k": "2"}})
    assert asyncio.run(_watch_with_aio(kaito_cluster.url, version)) == ["MODIFIED {'k': '2'}"]


class _Busy(http.server.BaseHTTPRequestHandler):
    """A server that is busy twice."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = b'{"kind": "Thing"}'
        self.send_response(429 if len(self.asked) < 3 else 200)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_is_busy_is_asked_again_by_the_tests_client() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Busy) as server:
        thread = threading.Thread(target=lambda: [server.handle_request() for _ in range(3)])
        thread.start()
        assert KubeClient(f"http://127.0.0.1:{server.server_port}").request("GET", "/x") == {"kind": "Thing"}
        thread.join()
    assert _Busy.asked == ["/x"] * 3


def test_secrets_keep_text_as_data(kaito_cluster: FakeCluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "text"}}
    stored = kaito_cluster.create(secret)
    assert (stored["data"], stored["type"], "stringData" in stored) == ({"k": "dGV4dA=="}, "Opaque", False)


def test_events_are_one_store_in_two_groups(kaito_cluster: FakeCluster) -> None:
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "m", "involvedObject": {}}
    kaito_cluster.create(event)
    read = kaito_cluster.get("events.events.k8s.io", "e")
    assert read is not None
    assert (read["apiVersion"], read["note"], "message" in read) == ("events.k8s.io/v1", "m", False)


def test_scale_is_read_and_written(kaito_cluster: FakeCluster) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    kaito_cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
    scale = kaito_cluster.patch("deployments", "d", {"spec": {"replicas": 3}}, subresource="scale")
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == ("Scale", {"replicas": 3}, "a=b")
    deployment = kaito_cluster.get("deploy", "d")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 3


def test_requests_that_make_no_sense_are_answered_not_survived_by_luck(kaito_cluster: FakeCluster) -> None:
    with pytest.raises(ApiError) as caught:
        kaito_cluster.request("POST", "/api/v1/namespaces/default/pods", ["no", "object"])
    assert caught.value.code == 400
    with pytest.raises(ApiError) as caught:
        kaito_cluster.request("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "p"}})
    assert caught.value.code == 400
    with pytest.raises(ApiError) as caught:
        kaito_cluster.request("DELETE", "/api/v1/namespaces/default/pods/p/status")
    assert caught.value.code == 405
    assert kaito_cluster.get("nothings", "x") is None
