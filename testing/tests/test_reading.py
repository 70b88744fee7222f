"""Selectors, pages, watches from old versions, and paths."""

from __future__ import annotations

from typing import Any

import pytest

from kaito_testing.kube.errors import ApiError
from kaito_testing.kube.objects import selectors
from kaito_testing.kube.server import routes
from kaito_testing.kube.server.routes import Route

Object = dict[str, Any]


def cm(name: str = "a", labels: dict[str, str] | None = None, **data: str) -> Object:
    meta = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("a=1", True),
        ("a==1", True),
        ("a=2", False),
        ("a!=2", True),
        ("x!=2", True),
        ("a", True),
        ("x", False),
        ("!x", True),
        ("!a", False),
        ("a in (1,2)", True),
        ("a notin (1,2)", False),
        ("a=1,b/c=2", True),
        ("a in (2,1),b/c", True),
        ("a=1,x", False),
    ],
)
def test_label_selectors(selector: str, matches: bool) -> None:
    obj = {"metadata": {"labels": {"a": "1", "b/c": "2"}}}
    assert selectors.label_selector(selector)(obj) is matches


def test_a_selector_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ApiError, match="unable to parse"):
        selectors.label_selector("a in 1")


@pytest.mark.parametrize(
    ("selector", "matches"),
    [("spec.nodeName=n", True), ("spec.nodeName!=n", False), ("status.phase=", True), ("metadata.name=x", False)],
)
def test_field_selectors(selector: str, matches: bool) -> None:
    obj = {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}}
    assert selectors.field_selector(selector)(obj) is matches


def test_pages_follow_one_another_without_gaps(desk: Any) -> None:
    for name in "abc":
        desk.create(cm(name))
    resource = desk.resource(cm())
    first = desk.store.page(resource, "default", limit=2)
    second = desk.store.page(resource, "default", limit=2, start=first.next)
    names = [obj["metadata"]["name"] for obj in first.items + second.items]
    assert names == ["a", "b", "c", "kube-root-ca.crt"]
    assert (first.remaining, second.next) == (2, "")


def test_history_has_what_happened_since_a_version(desk: Any) -> None:
    start = desk.store.revision
    desk.apply(cm(k="1"))
    desk.apply(cm(k="1"))
    desk.apply(cm(k="2"))
    desk.delete(cm())
    seen = [event.seen_by(lambda _: True) for event in desk.events(cm(), start)]
    assert seen == ["ADDED", "MODIFIED", "DELETED"]


def test_a_watcher_with_a_selector_sees_objects_come_and_go(desk: Any) -> None:
    start = desk.store.revision
    for labels in ({"l": "x"}, {"l": "x", "m": "y"}, {"m": "y"}, {"l": "x"}):
        desk.apply(cm(labels=labels))
    matches = selectors.label_selector("l=x")
    assert [event.seen_by(matches) for event in desk.events(cm(), start)] == ["ADDED", "MODIFIED", "DELETED", "ADDED"]


def test_the_pages_of_a_list_are_of_one_revision_for_as_long_as_it_is_kept(desk: Any) -> None:
    for name in ("a", "b", "c"):
        desk.apply(cm(name))
    first = desk.store.page(desk.resource(cm()), "default", limit=2)
    desk.apply(cm("aa"))  # before the place where the next page begins: only a watch tells
    second = desk.store.page(desk.resource(cm()), "default", limit=2, start=first.next)
    assert second.revision == first.revision
    assert [event.new["metadata"]["name"] for event in desk.events(cm(), second.revision)] == ["aa"]
    desk.store.history.compact(desk.store.revision)
    with pytest.raises(ApiError, match="410 Expired: The provided continue parameter is too old"):
        desk.store.page(desk.resource(cm()), "default", limit=2, start=first.next)


def test_a_version_older_than_the_history_is_gone(desk: Any) -> None:
    old = int(desk.apply(cm(k="1"))["metadata"]["resourceVersion"])
    desk.apply(cm(k="2"))
    desk.store.history.compact(desk.store.revision)
    with pytest.raises(ApiError) as caught:
        desk.events(cm(), old)
    assert (caught.value.code, caught.value.reason) == (410, "Expired")
    assert desk.events(cm(), desk.store.revision) == []


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/v1/pods", Route("", "v1", "pods")),
        ("/api/v1/namespaces", Route("", "v1", "namespaces")),
        ("/api/v1/namespaces/n", Route("", "v1", "namespaces", "", "n")),
        ("/api/v1/namespaces/n/status", Route("", "v1", "namespaces", "", "n", "status")),
        ("/api/v1/namespaces/n/pods/p/ephemeralcontainers", Route("", "v1", "pods", "n", "p", "ephemeralcontainers")),
        ("/apis/apps/v1/namespaces/n/deployments", Route("apps", "v1", "deployments", "n")),
        ("/apis/x.y/v1/namespaces/n/status", Route("x.y", "v1", "status", "n")),
        ("/apis/apps/v1", None),
        ("/api/v1", None),
        ("/healthz", None),
        ("/api/v1/namespaces/n/pods/p/a/b", None),
    ],
)
def test_paths_become_routes(path: str, route: Route | None) -> None:
    assert routes.parse(path) == route
