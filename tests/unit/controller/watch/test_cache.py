"""The watch cache: what is new to it, what it drops, and to which Workspace an object belongs."""

from typing import Any

import pytest

from kaito_core.api import NODES, KubeObject, ResourceType
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.controller.records import Change
from kaito_core.controller.watch.cache import Cache, key_of, watched_resources
from kaito_core.reconcile.objects.manifests import DEPLOYMENTS, PODS

CLAIMS = ResourceType("example.com", "v1", "claims", "Claim", namespaced=False)


def obj(name: str, version: int, *, workspace: str = "w", namespace: str = "ns", **parts: Any) -> KubeObject:
    labels = {"kaito.sh/workspace": workspace} if workspace else {}
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": {**metadata, "labels": labels, **parts.pop("metadata", {})}, **parts}


@pytest.fixture
def cache() -> Cache:
    return Cache(watched_resources((DEPLOYMENTS, PODS), (CLAIMS,)))


def test_only_what_is_newer_is_news(cache: Cache) -> None:
    first = obj("d", 9)
    assert cache.put(DEPLOYMENTS, first) == Change(DEPLOYMENTS, None, first)
    assert cache.put(DEPLOYMENTS, obj("d", 9)) is None
    assert cache.put(DEPLOYMENTS, obj("d", 8, spec={"old": True})) is None
    newer = obj("d", 10)  # as a number: "10" sorts before "9"
    assert cache.put(DEPLOYMENTS, newer) == Change(DEPLOYMENTS, first, newer)
    assert cache.get(DEPLOYMENTS, "d", "ns") == newer


def test_what_is_gone_does_not_come_back_by_a_late_answer(cache: Cache) -> None:
    cache.put(PODS, obj("p", 1))
    assert cache.remove(PODS, obj("p", 3), gone=True) is not None
    assert cache.put(PODS, obj("p", 2)) is None
    again = obj("p", 4, metadata={"uid": "another"})
    assert cache.put(PODS, again) is not None
    assert cache.remove(PODS, obj("p", 3), gone=True) is None  # late news of the first one
    assert cache.get(PODS, "p", "ns") == again


def test_what_left_the_selection_may_come_back(cache: Cache) -> None:
    cache.put(PODS, obj("p", 1))
    cache.remove(PODS, obj("p", 2), gone=True)
    assert cache.put(PODS, obj("p", 3)) is not None


def test_a_listing_replaces_what_is_older(cache: Cache) -> None:
    cache.put(PODS, obj("stays", 1))
    cache.put(PODS, obj("lost", 2))
    cache.put(PODS, obj("newer", 9))  # made after the listing
    cache.put(PODS, obj("elsewhere", 1, namespace="other"))
    changes = cache.replace(PODS, [obj("stays", 1), obj("new", 4)], 5, "ns")
    assert [(change.old is None, (change.new or change.old or {})["metadata"]["name"]) for change in changes] == [
        (True, "new"),
        (False, "lost"),
    ]
    assert [pod["metadata"]["name"] for pod in cache.list(PODS)] == ["new", "newer", "stays", "elsewhere"]


def test_lists_are_by_workspace(cache: Cache) -> None:
    for name, workspace, namespace in (("a", "w", "ns"), ("b", "x", "ns"), ("c", "w", "other")):
        cache.put(PODS, obj(name, 1, workspace=workspace, namespace=namespace))
    labels = {"kaito.sh/workspace": "w"}
    assert [pod["metadata"]["name"] for pod in cache.list(PODS, "ns", labels)] == ["a"]
    assert [pod["metadata"]["name"] for pod in cache.list(PODS, "", labels)] == ["a", "c"]
    cache.put(PODS, obj("a", 2, workspace="x"))  # moved to another Workspace
    assert cache.list(PODS, "ns", labels) == []


def test_objects_without_namespace_name_it_in_a_label(cache: Cache) -> None:
    labels = {"kaito.sh/workspace": "w", "kaito.sh/workspacenamespace": "ns"}
    claim: KubeObject = {"metadata": {"name": "c", "uid": "u", "resourceVersion": "1", "labels": labels}}
    cache.put(CLAIMS, claim)
    assert key_of(claim) == ("ns", "w")
    assert cache.list(CLAIMS, labels=labels) == [claim]
    assert cache.list(CLAIMS, labels={**labels, "kaito.sh/workspacenamespace": "other"}) == []


def test_what_it_can_answer(cache: Cache) -> None:
    assert cache.answers(NODES, None) and cache.is_complete(WORKSPACES)
    assert not cache.answers(PODS, None) and not cache.is_complete(PODS)
    assert cache.answers(PODS, {"kaito.sh/workspace": "w"})
    secrets = ResourceType("", "v1", "secrets", "Secret")
    assert not cache.answers(secrets, {"kaito.sh/workspace": "w"})
    assert cache.put(secrets, obj("s", 1)) is None and cache.get(secrets, "s", "ns") is None


def test_an_object_that_loses_its_label_is_forgotten(cache: Cache) -> None:
    cache.put(DEPLOYMENTS, obj("d", 1))
    change = cache.put(DEPLOYMENTS, obj("d", 2, workspace=""))
    assert change is not None and change.new is None
    assert cache.get(DEPLOYMENTS, "d", "ns") is None
