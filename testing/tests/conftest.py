"""A store with a clock that the tests own, and short words for its operations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito_testing.kube.objects.cluster import new_cluster
from kaito_testing.kube.objects.history import Event
from kaito_testing.kube.objects.options import DeleteOptions, WriteOptions
from kaito_testing.kube.resources import Resource

Object = dict[str, Any]

THING_SCHEMA: Object = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "default": 1, "minimum": 1, "maximum": 9},
                "mode": {"type": "string", "enum": ["a", "b"]},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "parts": {
                    "type": "array",
                    "maxItems": 3,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "value": {"type": "string", "pattern": "^[a-z]*$"}},
                    },
                },
                "atoms": {"type": "array", "items": {"type": "string"}},
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def crd(schema: Object | None = None) -> Object:
    """A CRD of things.test.example, with two versions and the status subresource."""
    versions: list[Object] = [
        {
            "name": name,
            "served": True,
            "storage": name == "v1",
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema or THING_SCHEMA},
        }
        for name in ("v1", "v1alpha1")
    ]
    names = {"kind": "Thing", "plural": "things"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.test.example"},
        "spec": {"group": "test.example", "scope": "Namespaced", "names": names, "versions": versions},
    }


class Desk:
    """A store as a test writes to it: manifests in, objects out, in the namespace "default"."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.verbs = new_cluster(lambda: self.time)
        self.store = self.verbs.store

    def pass_time(self) -> None:
        """A second later."""
        self.time += timedelta(seconds=1)

    def resource(self, manifest: Object) -> Resource:
        return self.store.resource_of(manifest)

    def _at(self, manifest: Object) -> tuple[Resource, str, str]:
        resource = self.resource(manifest)
        namespace = manifest["metadata"].get("namespace", "default") if resource.namespaced else ""
        return resource, namespace, manifest["metadata"]["name"]

    def create(self, manifest: Object) -> Object:
        resource, namespace, _ = self._at(manifest)
        return self.verbs.create(resource, namespace, manifest, WriteOptions("tester"))

    def apply(self, manifest: Object, manager: str = "kaito", **options: Any) -> Object:
        self.pass_time()
        return self.verbs.apply(*self._at(manifest), manifest, WriteOptions(manager, **options))[0]

    def patch(self, manifest: Object, change: Callable[[Object], Object], **options: Any) -> Object:
        self.pass_time()
        return self.verbs.patch(*self._at(manifest), change, WriteOptions("patcher", **options))

    def get(self, manifest: Object) -> Object | None:
        resource, namespace, name = self._at(manifest)
        return self.store.objects(resource.storage).get((namespace, name))

    def delete(self, manifest: Object, **options: Any) -> Object:
        return self.verbs.delete(*self._at(manifest), DeleteOptions(**options))

    def events(self, manifest: Object, since: int) -> list[Event]:
        return list(self.store.history.since(since, self.resource(manifest).storage))


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def things(desk: Desk) -> Desk:
    """The desk with the CRD of things installed."""
    desk.create(crd())
    return desk
