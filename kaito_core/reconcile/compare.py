"""Whether an object in the cluster already is what a manifest asks for, so that nothing is written without need."""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.reconcile.podspec import ADAPTER_VARIABLE

__all__ = ["HASH_ANNOTATION", "differs", "stamped"]

#: Hash of the manifest that was applied last: tells that a field was taken out of it, which a comparison with the
#: object cannot tell, since the API server adds defaults.
HASH_ANNOTATION = "kaito.sh/manifest-hash"


def _late_adapter(container: Mapping[str, Any], volumes: set[str]) -> bool:
    """Returns whether an init container fetches an adapter that can as well join a running pod.

    One with a volume of its own cannot: volumes of a pod are fixed.
    """
    marked = any(variable.get("name") == ADAPTER_VARIABLE for variable in container.get("env", []))
    return marked and all(mount["name"] in volumes for mount in container.get("volumeMounts", []))


def _lasting(manifest: KubeObject) -> KubeObject:
    """Returns what of a manifest is worth a new pod: all but the adapters that can be loaded into a running one."""
    spec = manifest.get("spec", {}).get("template", {}).get("spec", {})
    if not spec.get("initContainers"):
        return manifest
    lasting = copy.deepcopy(manifest)
    spec = lasting["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in spec.get("volumes", []) if "emptyDir" in volume}
    spec["initContainers"] = [c for c in spec["initContainers"] if not _late_adapter(c, volumes)]
    return lasting


def _hash(manifest: KubeObject) -> str:
    return hashlib.sha256(json.dumps(_lasting(manifest), sort_keys=True).encode()).hexdigest()[:16]


def stamped(manifest: KubeObject) -> KubeObject:
    """Returns a manifest with its hash as an annotation."""
    annotations = {**manifest["metadata"].get("annotations", {}), HASH_ANNOTATION: _hash(manifest)}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def _contains(actual: Any, wanted: Any) -> bool:
    """Returns whether everything wanted is there; what the server or others added does not count."""
    if isinstance(wanted, Mapping):
        return isinstance(actual, Mapping) and all(
            _contains(actual.get(key), value) or (actual.get(key) is None and value in ({}, [], None))
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(actual, list) and all(any(_contains(have, want) for have in actual) for want in wanted)
    return bool(actual == wanted)


def differs(manifest: KubeObject, live: KubeObject | None) -> bool:
    """Returns whether a manifest (not yet stamped) has to be applied.

    Strengths never reach a pod template, and adapters that can be loaded into running pods do not count: the
    template carries them from its next change on.
    """
    if live is None:
        return True
    if live["metadata"].get("annotations", {}).get(HASH_ANNOTATION) != _hash(manifest):
        return True
    return not _contains(live, _lasting(manifest))
