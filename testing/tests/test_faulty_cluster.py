"""The log and the faults of a cluster: the same of an emulated API and of a server behind a proxy."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from plain_requests import call, lines

from kaito_testing.world.client import MERGE
from kaito_testing.world.cluster import FakeCluster
from kaito_testing.world.faulty_cluster import FaultyCluster
from kaito_testing.world.proxy import ProxiedCluster

Object = dict[str, Any]

CM: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}}


@pytest.fixture(params=["emulated", "proxied"])
def cluster(request: pytest.FixtureRequest, kaito_cluster: FakeCluster) -> Iterator[FaultyCluster]:
    """An emulated API, and a proxy before one."""
    with contextlib.ExitStack() as stack:
        proxied = request.param == "proxied"
        yield stack.enter_context(ProxiedCluster(kaito_cluster)) if proxied else kaito_cluster


def watching(cluster: FaultyCluster, query: str) -> tuple[threading.Thread, list[Object]]:
    """Opens a watch of ConfigMaps and returns who reads it, and what they have read once it has ended."""
    url, found = f"{cluster.url}/api/v1/configmaps?watch=1&{query}", []
    thread = threading.Thread(target=lambda: found.extend(lines(url)))
    thread.start()
    cluster.wait("the watch", lambda: cluster.open_watches)
    return thread, found


def test_faults_hit_the_next_requests_and_then_end(cluster: FaultyCluster) -> None:
    cluster.apply(CM)
    path = f"{cluster.url}/api/v1/namespaces/default/configmaps/a"
    fault = cluster.fail("PATCH", "configmaps/a$", 429, times=2, retry_after_seconds=3)
    for left in (1, 0):
        with pytest.raises(urllib.error.HTTPError) as caught:
            call(path, "PATCH", {"data": {"k": "2"}})
        assert (caught.value.code, caught.value.headers["Retry-After"]) == (429, "3")
        assert json.load(caught.value)["reason"] == "TooManyRequests"
        assert fault.times == left
    assert call(path, "PATCH", {"data": {"k": "2"}})["data"] == {"k": "2"}


def test_a_request_that_hangs_is_not_served(cluster: FaultyCluster) -> None:
    cluster.apply(CM)
    path = f"{cluster.url}/api/v1/namespaces/default/configmaps/a"
    cluster.fail("PATCH", "configmaps/a$", manner="hang")
    body = json.dumps({"data": {"k": "2"}}).encode()
    headers = {"Content-Type": MERGE, "User-Agent": "someone"}
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(urllib.request.Request(path, body, headers, method="PATCH"), timeout=0.2)
    assert cluster.get("configmaps", "a")["data"] == {"k": "1"}
    assert [record.status for record in cluster.requests(method="PATCH")] == [0]
    assert call(path, "PATCH", {"data": {"k": "3"}})["data"] == {"k": "3"}


def test_a_connection_that_dies_in_mid_answer_was_served(cluster: FaultyCluster) -> None:
    cluster.apply(CM)
    path = f"{cluster.url}/api/v1/namespaces/default/configmaps/a"
    cluster.fail("PATCH", "configmaps/a$", manner="cut")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        call(path, "PATCH", {"data": {"k": "2"}})
    assert cluster.get("configmaps", "a")["data"] == {"k": "2"}
    assert call(path, "PATCH", {"data": {"k": "3"}})["data"] == {"k": "3"}


def test_writes_are_counted_by_manager_and_path(cluster: FaultyCluster) -> None:
    cluster.apply(CM)
    path = f"{cluster.url}/api/v1/namespaces/default/configmaps/a"
    call(path)
    call(f"{path}?fieldManager=kaito", "PATCH", {"data": {"k": "2"}})
    call(f"{path}?dryRun=All", "PATCH", {"data": {"k": "3"}})
    assert [(record.method, record.manager) for record in cluster.writes()] == [("PATCH", "kaito")]
    assert [record.manager for record in cluster.requests()] == ["someone", "kaito", "someone"]
    assert cluster.writes(manager="other") == cluster.writes(path="secrets") == []
    cluster.clear_log()
    assert cluster.requests() == []


def test_an_expired_watch_says_gone_before_it_ends(cluster: FaultyCluster) -> None:
    version = cluster.apply(CM)["metadata"]["resourceVersion"]
    thread, found = watching(cluster, f"fieldSelector=metadata.name=a&resourceVersion={version}")
    cluster.expire_watches()
    thread.join()
    assert [(event["type"], event["object"]["code"]) for event in found] == [("ERROR", 410)]
    (again,) = lines(f"{cluster.url}/api/v1/configmaps?watch=1&resourceVersion={version}")
    assert again["object"]["reason"] == "Expired"
    assert again["object"]["message"].startswith(f"too old resource version: {version} (")


def test_an_expired_history_is_forgotten_up_to_now_and_not_beyond(cluster: FaultyCluster) -> None:
    cluster.apply(CM)
    before = cluster.request("GET", "/api/v1/configmaps")["metadata"]["resourceVersion"]
    cluster.expire_watches()
    after = cluster.request("GET", "/api/v1/configmaps")["metadata"]["resourceVersion"]
    url = f"{cluster.url}/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=0.1&resourceVersion="
    assert [event["type"] for event in lines(url + before)] == ["ERROR"]
    assert lines(url + after) == []  # nobody has written since, and a new list is new enough


def test_a_dropped_watch_ends_and_goes_on_from_where_it_was(cluster: FaultyCluster) -> None:
    version = cluster.apply(CM)["metadata"]["resourceVersion"]
    thread, found = watching(cluster, f"resourceVersion={version}")
    cluster.drop_watches()
    thread.join()
    assert found == []
    cluster.apply({**CM, "data": {"k": "2"}})
    (event,) = lines(f"{cluster.url}/api/v1/configmaps?watch=1&timeoutSeconds=0.1&resourceVersion={version}")
    assert (event["type"], event["object"]["data"]) == ("MODIFIED", {"k": "2"})


def test_only_the_watches_that_are_meant_fail_to_open(cluster: FaultyCluster) -> None:
    cluster.fail("WATCH", "/configmaps$", 403)
    url = f"{cluster.url}/api/v1/configmaps?fieldSelector=metadata.name=none"
    assert call(url)["kind"] == "ConfigMapList"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        lines(f"{url}&watch=1&timeoutSeconds=0.1")
    assert lines(f"{url}&watch=1&timeoutSeconds=0.1") == []


def test_a_proxy_asks_as_its_client_may_and_passes_errors_on(kaito_cluster: FakeCluster) -> None:
    with ProxiedCluster(kaito_cluster) as cluster:
        with pytest.raises(urllib.error.HTTPError) as caught:
            call(f"{cluster.url}/api/v1/namespaces/default/configmaps/none?a=%2F")
        assert (caught.value.code, json.load(caught.value)["reason"]) == (404, "NotFound")
        assert [(record.status, record.query) for record in cluster.requests()] == [(404, {"a": "/"})]
        assert [record.query for record in kaito_cluster.requests()] == [{"a": "/"}]
