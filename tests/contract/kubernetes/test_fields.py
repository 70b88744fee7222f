"""Nothing is accepted and ignored: each field of the CRD, changed, changes a manifest or what is asked of nodes.

A new field belongs into `WHOLE`, and into `OTHER` where another value is not plain to make.
"""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from kaito_core.api import NodeState, parse_workspace
from kaito_core.api.workspace.crd import workspace_crd
from kaito_core.errors import WorkspaceError
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.nodes.request import node_request
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings
from kaito_testing.registry import example_preset, registry_with

SCHEMA: dict[str, Any] = workspace_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SETTINGS = Settings(weights_host_paths=("/models", "/models2"))
REGISTRY = registry_with([example_preset(name="m"), example_preset(name="m2")], settings=SETTINGS)

IMAGE = "registry.example/style:1"
#: A Workspace with every field, except those that shut others out: `ALONE` has them.
WHOLE: dict[str, Any] = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": "w", "namespace": "default", "uid": "u"},
    "spec": {"replicas": 2},
    "resource": {
        "count": 2,
        "instanceType": "Standard_NC24ads_A100_v4",
        "labelSelector": {
            "matchLabels": {"pool": "a"},
            "matchExpressions": [{"key": "rack", "operator": "In", "values": ["a"]}],
        },
        "preferredNodes": ["gpu-1"],
    },
    "inference": {
        "preset": {
            "name": "m",
            "accessMode": "public",
            "presetOptions": {"image": IMAGE, "imagePullSecrets": ["pull"], "modelAccessSecret": "hub"},
        },
        "adapters": [
            {
                "source": {"name": "style", "image": IMAGE, "imagePullSecrets": ["theirs"]},
                "strength": "0.5",
                "digest": "sha256:" + "0" * 64,
            }
        ],
        "blends": [{"name": "mix", "strengths": {"style": 0.5}}],
        "config": "options",
        "pod": {
            "labels": {"team": "a"},
            "annotations": {"note": "a"},
            "tolerations": [
                {"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoExecute", "tolerationSeconds": 5}
            ],
            "env": [
                {"name": "LEVEL", "value": "a"},
                {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
            "envFrom": [{"configMapRef": {"name": "a"}}],
            "runtimeClassName": "nvidia",
            "priorityClassName": "high",
            "schedulerName": "volcano",
            "serviceAccountName": "server",
            "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "64Gi"}},
            "affinity": {"podAntiAffinity": {}},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
            "volumes": [{"name": "extra", "emptyDir": {}}],
            "volumeMounts": [{"name": "extra", "mountPath": "/extra", "subPath": "a", "readOnly": True}],
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["hub"]}],
            "dnsConfig": {"nameservers": ["10.0.0.2"]},
            "dnsPolicy": "None",
            "imagePullSecrets": ["more"],
            "securityContext": {
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "fsGroupChangePolicy": "Always",
                "supplementalGroups": [1000],
                "seLinuxOptions": {"level": "s0"},
                "sysctls": [{"name": "net.core.somaxconn", "value": "1"}],
            },
            "caBundle": {"configMap": "ca", "key": "ca.crt"},
        },
        "service": {
            "type": "LoadBalancer",
            "annotations": {"internal": "a"},
            "loadBalancerClass": "example.com/a",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
        },
    },
}

_ADAPTER = "inference.adapters[]"
_SOURCE = f"{_ADAPTER}.source"
_OWN_IMAGE = "inference.preset.presetOptions.image"
#: For a field that another one of `WHOLE` shuts out: what to put in before, as (path, value); None takes out.
ALONE: dict[str, list[tuple[str, Any]]] = {
    "resource.count": [("spec", None)],
    "inference.template": [(name, None) for name in ("inference.preset", "inference.adapters", "inference.blends")]
    + [(f"inference.{name}", None) for name in ("config", "pod", "service")],
    f"{_SOURCE}.urls[]": [(f"{_SOURCE}.image", None), (f"{_SOURCE}.urls", ["https://a.example/x.zip"])],
    f"{_SOURCE}.secretName": [
        (f"{_SOURCE}.image", None),
        (f"{_SOURCE}.uri", "hf://org/a"),
        (f"{_SOURCE}.secretName", "own"),
    ],
    f"{_SOURCE}.uri": [(f"{_SOURCE}.image", None), (f"{_SOURCE}.uri", "hf://org/a")],
    f"{_SOURCE}.volumeSource": [
        (f"{_SOURCE}.image", None),
        (f"{_SOURCE}.volumeSource", {"persistentVolumeClaim": {"claimName": "a"}}),
    ],
    "inference.weights.claim": [(_OWN_IMAGE, None), ("inference.weights", {"claim": "store"})],
    "inference.weights.hostPath": [(_OWN_IMAGE, None), ("inference.weights", {"hostPath": "/models"})],
    "inference.preset.presetOptions.modelAccessSecret": [("inference.preset.presetOptions.image", None)],
    "inference.preset.accessMode": [("inference.preset.presetOptions.image", None)],
}
#: Other values than `other` finds; where a change is refused, the refusal is what is said of it.
OTHER: dict[str, Any] = {
    "metadata.name": "v",
    "inference.preset.name": "m2",
    "inference.template": {"spec": {"containers": [{"name": "a", "image": "b:1"}]}},
    "resource.labelSelector.matchExpressions[].operator": "NotIn",
    f"{_SOURCE}.secretName": "keys",
    f"{_SOURCE}.volumeSource": {"persistentVolumeClaim": {"claimName": "b"}},
    f"{_SOURCE}.urls[]": "https://a.example/y.zip",
    f"{_ADAPTER}.strength": "0.75",
    f"{_ADAPTER}.digest": "sha256:" + "1" * 64,
    "inference.blends[].strengths{}": 0.75,
    "inference.pod.resources.requests{}": "3",
    "inference.pod.resources.limits{}": "65Gi",
    "inference.pod.affinity": {"podAffinity": {}},
    "inference.pod.env[].valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
    "inference.pod.envFrom[]": {"configMapRef": {"name": "b"}},
    "inference.pod.topologySpreadConstraints[]": {
        "maxSkew": 2,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
    },
    "inference.pod.volumes[]": {"name": "extra", "configMap": {"name": "a"}},
    "inference.pod.hostAliases[].ip": "10.0.0.9",
    "inference.pod.dnsConfig": {"nameservers": ["10.0.0.3"]},
    "inference.pod.dnsPolicy": "Default",
    "inference.pod.securityContext.seLinuxOptions": {"level": "s1"},
    "inference.pod.securityContext.sysctls[]": {"name": "net.core.somaxconn", "value": "2"},
    "inference.service.loadBalancerSourceRanges[]": "10.0.0.0/9",
}
#: What the ConfigMaps say that `inference.config` names.
CONFIGS: dict[str, dict[str, str]] = {
    "options": {"inference_config.yaml": "kaito: {cache-gib: 1}"},
    "options2": {"inference_config.yaml": "kaito: {cache-gib: 2}"},
}


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of a schema that have values of their own; a list is `[]`, the values of a map are `{}`."""
    free = schema.get("x-kubernetes-preserve-unknown-fields")
    if schema.get("properties") and not free and not path.endswith("volumes[]"):
        for name, part in schema["properties"].items():
            yield from leaves(part, f"{path}.{name}" if path else name)
    elif "items" in schema:
        yield from leaves(schema["items"], f"{path}[]")
    elif isinstance(schema.get("additionalProperties"), dict):
        yield from leaves(schema["additionalProperties"], f"{path}{{}}")
    else:
        yield path, schema


FIELDS = {
    path: schema
    for path, schema in leaves(SCHEMA)
    if not path.startswith("status") and path not in ("apiVersion", "kind")
}


def steps(path: str) -> list[str]:
    return path.replace("[]", ".[]").replace("{}", ".{}").split(".")


def put(document: Any, path: str, value: Any) -> None:
    """Sets a field; None removes it. Of lists the last entry that has it is meant, of maps the first value."""
    *parents, last = steps(path)
    for name in parents:
        document = document[_key(document, name, last)] if name in ("[]", "{}") else document.setdefault(name, {})
    key = _key(document, last, last)
    if value is None:
        document.pop(key, None)
    else:
        document[key] = value


def _key(document: Any, name: str, wanted: str) -> Any:
    if name == "{}":
        return next(iter(document))
    if name == "[]":
        return max(i for i, item in enumerate(document) if not isinstance(item, dict) or wanted in item or i == 0)
    return name


def get(document: Any, path: str) -> Any:
    *parents, last = steps(path)
    for name in parents:
        document = (
            document.get(name, {})
            if isinstance(document, dict) and name != "{}"
            else document[_key(document, name, last)]
        )
    return document.get(last) if isinstance(document, dict) and last != "{}" else document[_key(document, last, last)]


def other(value: Any, schema: dict[str, Any]) -> Any:
    """Another value than the one there is; of a field that `WHOLE` does not have, any."""
    if value is None:
        return {"integer": schema.get("minimum", 1), "boolean": True, "object": {"a": "b"}}.get(
            schema.get("type", ""), "a"
        )
    if "enum" in schema:
        return next(found for found in schema["enum"] if found not in ("", value))
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}2"


def outcome(document: dict[str, Any]) -> object:
    """All that comes of a Workspace: its manifests, what is asked of nodes, and what is said."""
    try:
        workspace = parse_workspace(document)
        resolved = resolve(workspace, REGISTRY, CONFIGS.get(workspace.inference.config))
        made = desired(resolved, NodeState(("gpu-1",)), SETTINGS)
    except WorkspaceError as error:
        return str(error)
    return made.objects, node_request(workspace, resolved.preset), resolved.notices


def test_a_workspace_with_every_field_is_valid() -> None:
    assert not isinstance(outcome(WHOLE), str), outcome(WHOLE)


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_that_is_changed_changes_something(path: str) -> None:
    before = copy.deepcopy(WHOLE)
    for place, value in ALONE.get(path, ()):
        put(before, place, value)
    after = copy.deepcopy(before)
    if path == "inference.template":
        before["inference"]["template"] = {"spec": {"containers": [{"name": "a", "image": "a:1"}]}}
    value = OTHER[path] if path in OTHER else other(get(before, path), FIELDS[path])
    put(after, path, value)
    assert outcome(before) != outcome(after)
    assert not isinstance(outcome(before), str), outcome(before)
