"""The discovery documents: groups, versions and resource types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kaito_testing.kube.resources import Resource

__all__ = ["answer"]

Object = dict[str, Any]

VERSION: Object = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0",
    "gitCommit": "emulated",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}


def answer(path: str, resources: Sequence[Resource]) -> Object | None:
    """The discovery document at a path, None if there is none."""
    parts = [part for part in path.split("/") if part]
    match parts:
        case ["version"]:
            return VERSION
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["api", "v1"]:
            return _resource_list("", "v1", resources)
        case ["apis"]:
            groups = list(dict.fromkeys(item.group for item in resources if item.group))
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name, resources) for name in groups]}
        case ["apis", group] if any(item.group == group for item in resources):
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group, resources)}
        case ["apis", group, version] if any((item.group, item.version) == (group, version) for item in resources):
            return _resource_list(group, version, resources)
        case ["openapi", "v3"]:
            return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in _roots(resources)}}
        case ["openapi", "v3", *root] if "/".join(root) in _roots(resources):
            return _openapi("/".join(root), resources)
    return None


def _root(resource: Resource) -> str:
    return f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"


def _roots(resources: Sequence[Resource]) -> list[str]:
    return list(dict.fromkeys(_root(item) for item in resources))


def _openapi(root: str, resources: Sequence[Resource]) -> Object:
    """Enough for kubectl to see that the server validates fields. It has no schemas."""
    parameters = [{"name": name, "in": "query"} for name in ("dryRun", "fieldManager", "fieldValidation", "force")]
    paths = {}
    for item in resources:
        if _root(item) == root:
            kind = {"group": item.group, "kind": item.kind, "version": item.version}
            space = "namespaces/{namespace}/" if item.namespaced else ""
            patch = {"parameters": parameters, "x-kubernetes-group-version-kind": kind, "responses": {}}
            paths[f"/{root}/{space}{item.plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]}, "paths": paths}


def _group(group: str, resources: Sequence[Resource]) -> Object:
    names = list(dict.fromkeys(item.version for item in resources if item.group == group))
    versions = [{"groupVersion": f"{group}/{name}", "version": name} for name in sorted(names, key=_age)]
    return {"name": group, "versions": versions, "preferredVersion": versions[0]}


def _age(version: str) -> tuple[int, str]:
    """A sort key of versions by the API's preference: stable, beta, alpha."""
    return (2 if "alpha" in version else 1 if "beta" in version else 0, version)


def _resource_list(group: str, version: str, resources: Sequence[Resource]) -> Object:
    entries: list[Object] = []
    for item in resources:
        if (item.group, item.version) != (group, version):
            continue
        entry: Object = {
            "name": item.plural,
            "singularName": item.singular,
            "namespaced": item.namespaced,
            "kind": item.kind,
            "verbs": list(item.verbs),
            "storageVersionHash": item.storage_hash,
        }
        if item.short_names:
            entry["shortNames"] = list(item.short_names)
        if item.categories:
            entry["categories"] = list(item.categories)
        entries.append(entry)
        entries += [_subresource(item, name) for name in item.subresources]
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}


def _subresource(resource: Resource, name: str) -> Object:
    entry = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["get", "patch", "update"],
    }
    return entry | ({"group": "autoscaling", "version": "v1", "kind": "Scale"} if name == "scale" else {})
