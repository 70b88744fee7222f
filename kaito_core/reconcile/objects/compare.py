"""Whether an object in the cluster already is what a manifest asks for."""

import copy
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.api.quantity import parse_quantity
from kaito_core.reconcile.objects.podspec import ADAPTER_VARIABLE

__all__ = ["HASH_ANNOTATION", "adapters_at_start", "differs", "has_same_pods", "stamped", "without_adapters"]

#: Hash of the manifest that was applied last. A field that was removed from the manifest since shows in it, and not in
#: the object, where it could be a default of the API server.
HASH_ANNOTATION = "kaito.sh/manifest-hash"


def _is_adapter(container: Mapping[str, Any]) -> bool:
    return any(variable.get("name") == ADAPTER_VARIABLE for variable in container.get("env", []))


def _mounted(containers: Iterable[Mapping[str, Any]]) -> set[object]:
    return {mount.get("name") for container in containers for mount in container.get("volumeMounts", [])}


def _pod_spec(manifest: KubeObject) -> KubeObject:
    """Returns the pod spec in a manifest, an empty one for an object without pods."""
    spec: KubeObject = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return spec


def _without_adapters(manifest: KubeObject) -> KubeObject:
    """Returns a manifest without its adapters and their volumes: removing an adapter is not worth a new pod."""
    if not any(map(_is_adapter, _pod_spec(manifest).get("initContainers", []))):
        return manifest
    lasting = copy.deepcopy(manifest)
    spec = _pod_spec(lasting)
    fetches = [container for container in spec["initContainers"] if _is_adapter(container)]
    others = [container for container in spec["initContainers"] if not _is_adapter(container)]
    spec["initContainers"] = others
    private = _mounted(fetches) - _mounted([*others, *spec["containers"]])
    spec["volumes"] = [v for v in spec.get("volumes", []) if v.get("name") not in private]
    return lasting


def _needed_at_start(manifest: KubeObject) -> KubeObject:
    """Returns a manifest without the adapters that can be loaded into a running pod as well.

    An adapter with a volume of its own cannot, one that the server does not mount: a pod's volumes and pull secrets are
    fixed when it is created.
    """
    if not any(map(_is_adapter, _pod_spec(manifest).get("initContainers", []))):
        return manifest
    lasting = copy.deepcopy(manifest)
    spec = _pod_spec(lasting)
    shared = _mounted(spec["containers"])
    spec["initContainers"] = [c for c in spec["initContainers"] if not _is_adapter(c) or _mounted([c]) - shared]
    return lasting


def adapters_at_start(manifest: KubeObject) -> set[str]:
    """Returns the folders ("name/revision") of the adapters that a workload's pods fetch before they start."""
    return {
        str(variable.get("value"))
        for container in _pod_spec(manifest).get("initContainers", [])
        for variable in container.get("env", [])
        if variable.get("name") == ADAPTER_VARIABLE
    }


def without_adapters(manifest: KubeObject, folders: Collection[str]) -> KubeObject:
    """Returns a workload whose pods start without some adapters; those that need a volume of their own stay."""
    needed = adapters_at_start(_needed_at_start(manifest))
    late = set(folders) - needed
    left = copy.deepcopy(manifest)
    spec = _pod_spec(left)
    spec["initContainers"] = [
        container
        for container in spec.get("initContainers", [])
        if not any(v.get("name") == ADAPTER_VARIABLE and v.get("value") in late for v in container.get("env", []))
    ]
    return left


def _hash(manifest: KubeObject) -> str:
    lasting = _without_adapters(manifest)
    if "replicas" in lasting.get("spec", {}):  # left out where others scale; that it is what we say shows in the object
        lasting = {**lasting, "spec": {key: value for key, value in lasting["spec"].items() if key != "replicas"}}
    if "imagePullSecrets" in _pod_spec(lasting):
        lasting = copy.deepcopy(lasting)
        del _pod_spec(lasting)["imagePullSecrets"]
    return hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()[:16]


def stamped(manifest: KubeObject) -> KubeObject:
    """Returns a manifest with its hash as an annotation."""
    annotations = {**manifest["metadata"].get("annotations", {}), HASH_ANNOTATION: _hash(manifest)}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def _same(actual: object, wanted: object) -> bool:
    """Returns whether two values are equal, as quantities too: the API server writes 1024Mi as 1Gi."""
    if actual == wanted:
        return True
    if not isinstance(actual, str | int | float) or not isinstance(wanted, str | int | float):
        return False
    try:
        return parse_quantity(actual) == parse_quantity(wanted)
    except ValueError:
        return False


def _contains(actual: Any, wanted: Any, *, pruned: bool) -> bool:
    """Returns whether a value has all that is wanted; what the API server or others have added does not count.

    Where the user wrote what is wanted (`pruned`), a missing field is one that the API server does not know and drops.
    """
    if isinstance(wanted, Mapping):
        return isinstance(actual, Mapping) and all(
            _contains(actual[key], value, pruned=pruned)
            if actual.get(key) is not None
            else pruned or value in ({}, [], None)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(actual, list) and all(
            any(_contains(have, want, pruned=pruned) for have in actual) for want in wanted
        )
    return _same(actual, wanted)


def has_same_pods(template: KubeObject, live: KubeObject, *, pruned: bool = False) -> bool:
    """Returns whether a workload in the cluster has a pod template, whatever the number of its pods.

    As for `differs`, adapters that can be loaded into running pods do not count.
    """
    wanted = _needed_at_start({"spec": {"template": template}})["spec"]["template"]
    return _contains(live.get("spec", {}).get("template", {}), wanted, pruned=pruned)


def differs(manifest: KubeObject, live: KubeObject | None, *, pruned: bool = False) -> bool:
    """Returns whether a manifest has to be applied.

    Strengths are not in a pod template. Adapters that can be loaded into running pods do not count, nor do adapters
    that are no longer wanted: both get into the template, or out of it, with its next change.

    Args:
        manifest: What should be, `stamped`.
        live: What is, None for nothing.
        pruned: Whether the manifest holds a template of the user's, from which the API server may drop fields.
    """
    if live is None:
        return True
    stamp = manifest["metadata"]["annotations"][HASH_ANNOTATION]
    if live["metadata"].get("annotations", {}).get(HASH_ANNOTATION) != stamp:
        return True
    return not _contains(live, _needed_at_start(manifest), pruned=pruned)
