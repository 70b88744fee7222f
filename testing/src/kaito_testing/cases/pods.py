"""Rows of the table of Workspaces about what pods take along, their Service and their weights."""

from __future__ import annotations

from typing import Any

from kaito_core.api.workspace.pod_parts import MAX_LISTED
from kaito_testing.cases.documents import Case, Document, bad, good, workspace_document

__all__ = ["POD_CASES"]

_POD = "inference.pod"
_TEMPLATE = {"spec": {"containers": [{"name": "server", "image": "registry.example/mine:1"}]}}
_DOTS = "CEL would need a pattern for what Python sees by splitting the path"
_SHAPE = "its fields are Kubernetes' own, of which the schema keeps whatever there is"


def pod(**fields: Any) -> Document:
    """Returns a Workspace whose pods take something along."""
    return workspace_document(inference__pod=fields)


def _service(**fields: Any) -> Document:
    return workspace_document(inference__service=fields)


def _weights(**fields: Any) -> Document:
    return workspace_document(inference__weights=fields)


def _beside_template(**parts: Any) -> Document:
    return workspace_document(inference={"template": _TEMPLATE, **parts})


def _mounted(path: str) -> Document:
    return pod(volumes=[{"name": "a", "emptyDir": {}}], volumeMounts=[{"name": "a", "mountPath": path}])


def _keys(rule: str, make: Any, field: str) -> tuple[Case, ...]:
    """Rows about the keys of labels or annotations."""
    return (
        *bad(
            rule,
            field,
            blank=make({"a b": "c"}),
            ours=make({"kaito.sh/workspace": "other"}),
            of_a_controller=make({"pod-template-hash": "1"}),
            of_a_stateful_set=make({"statefulset.kubernetes.io/pod-name": "a"}),
            number=make({"a": 1}),
            too_many=make({f"a{index}": "" for index in range(MAX_LISTED + 1)}),
        ),
        *good(rule, of_others=make({"sidecar.istio.io/inject": "false", "team": "a"})),
    )


POD_CASES: tuple[Case, ...] = (
    *good(
        "a pod takes along what its cluster needs",
        everything=pod(
            labels={"team": "search", "kueue.x-k8s.io/queue-name": "gpu"},
            annotations={"sidecar.istio.io/inject": "false", "note": "a b"},
            tolerations=[
                {"key": "spot", "operator": "Exists"},
                {"key": "pool", "value": "a", "effect": "NoExecute", "tolerationSeconds": 60},
                {"operator": "Exists"},
            ],
            env=[
                {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
            ],
            envFrom=[{"secretRef": {"name": "a"}}],
            runtimeClassName="nvidia",
            priorityClassName="high",
            schedulerName="volcano",
            serviceAccountName="models",
            resources={"requests": {"cpu": 2, "example.com/fpga": "1"}, "limits": {"cpu": "4", "memory": "64Gi"}},
            affinity={"podAntiAffinity": {}},
            topologySpreadConstraints=[{"topologyKey": "topology.kubernetes.io/zone"}],
            volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "a"}}],
            volumeMounts=[{"name": "data", "mountPath": "/data", "subPath": "a", "readOnly": True}],
            hostAliases=[{"ip": "10.0.0.1", "hostnames": ["hub.example"]}],
            dnsConfig={"searches": ["example"]},
            dnsPolicy="None",
            imagePullSecrets=["registry"],
            securityContext={"runAsUser": 1000, "fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch"},
            caBundle={"configMap": "company", "key": "ca.pem"},
        ),
        nothing=pod(),
    ),
    *_keys("labels of pods are not those of the operator", lambda found: pod(labels=found), f"{_POD}.labels"),
    *_keys(
        "annotations of pods are not those of the operator",
        lambda found: pod(annotations=found),
        f"{_POD}.annotations",
    ),
    *_keys(
        "annotations of the Service are not those of the operator",
        lambda found: _service(annotations=found),
        "inference.service.annotations",
    ),
    *bad(
        "a variable is not one that the operator sets",
        f"{_POD}.env[0]",
        ours=pod(env=[{"name": "KAITO_PORT", "value": "1"}]),
        home=pod(env=[{"name": "HOME", "value": "/"}]),
        of_torchrun=pod(env=[{"name": "WORLD_SIZE", "value": "2"}]),
        other_gpus=pod(env=[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]),
        two_values=pod(env=[{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]),
        number=pod(env=[{"name": "A", "value": 1}]),
        no_name=pod(env=[{"value": "1"}]),
        no_variable=pod(env=[{"name": "1A"}]),
    ),
    *bad(
        "a toleration is one that Kubernetes accepts",
        f"{_POD}.tolerations[0]",
        value_of_exists=pod(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
        no_key=pod(tolerations=[{"value": "b"}]),
        unknown_operator=pod(tolerations=[{"key": "a", "operator": "In"}]),
        unknown_effect=pod(tolerations=[{"key": "a", "effect": "Never"}]),
        seconds_of_another_effect=pod(tolerations=[{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 1}]),
    ),
    *bad(
        "resources are amounts, and not GPUs",
        f"{_POD}.resources",
        gpus=pod(resources={"limits": {"nvidia.com/gpu": 8}}),
        requested_gpus=pod(resources={"requests": {"amd.com/gpu": "1"}}),
        no_amount=pod(resources={"limits": {"cpu": "much"}}),
        negative=pod(resources={"requests": {"cpu": "-1"}}),
        fraction_without_quotes=pod(resources={"requests": {"cpu": 0.5}}),
        no_name=pod(resources={"limits": {"a b": "1"}}),
        no_name_of_a_request=pod(resources={"requests": {"a b": "1"}}),
    ),
    *bad(
        "a volume has a name of its own and one kind",
        f"{_POD}.volumes[0]",
        ours=pod(volumes=[{"name": "weights", "emptyDir": {}}]),
        of_an_adapter=pod(volumes=[{"name": "source-style", "emptyDir": {}}]),
        no_name=pod(volumes=[{"emptyDir": {}}]),
        no_kind=pod(volumes=[{"name": "a"}]),
        two_kinds=pod(volumes=[{"name": "a", "emptyDir": {}, "hostPath": {"path": "/a"}}]),
    ),
    *bad(
        "a mount covers none of the operator's",
        f"{_POD}.volumeMounts[0].mountPath",
        adapters=_mounted("/mnt/adapter"),
        inside_adapters=_mounted("/mnt/adapter/style"),
        around_adapters=_mounted("/mnt"),
        weights=_mounted("/workspace/weights"),
        configuration=_mounted("/etc/kaito/serving"),
        shared_memory=_mounted("/dev/shm"),
        temporary_files=_mounted("/tmp"),
        root=_mounted("/"),
        relative=_mounted("data"),
        two_parts=_mounted("/data:ro"),
    ),
    *bad(
        "a mount covers none of the operator's",
        f"{_POD}.volumeMounts[0].mountPath",
        _DOTS,
        dots=_mounted("/data/../mnt/adapter"),
    ),
    *good("a mount covers none of the operator's", beside=_mounted("/mnt/adapters"), inside_tmp=_mounted("/tmp/a")),
    *bad(
        "an affinity has parts that Kubernetes knows",
        f"{_POD}.affinity",
        _SHAPE,
        unknown=pod(affinity={"nodeSelector": {"a": "b"}}),
        no_list=pod(
            affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": {}}}}
        ),
    ),
    *bad(
        "a spread constraint has a topologyKey",
        f"{_POD}.topologySpreadConstraints[0]",
        _SHAPE,
        none=pod(topologySpreadConstraints=[{"maxSkew": 1}]),
    ),
    *bad(
        "pods run as a user who is not root",
        f"{_POD}.securityContext.runAsUser",
        root=pod(securityContext={"runAsUser": 0}),
        text=pod(securityContext={"runAsUser": "1000"}),
    ),
    *bad(
        "a Service is of a type that leads to pods",
        "inference.service.type",
        other=_service(type="ExternalName"),
    ),
    *bad(
        "a Service is of a type that leads to pods",
        "inference.service.loadBalancerSourceRanges",
        no_range=_service(type="LoadBalancer", loadBalancerSourceRanges=["everywhere"]),
    ),
    *good(
        "a Service is of a type that leads to pods",
        internal=_service(
            type="LoadBalancer", annotations={"service.beta.kubernetes.io/aws-load-balancer-internal": "true"}
        ),
        limited=_service(type="LoadBalancer", loadBalancerClass="a.example/b", loadBalancerSourceRanges=["10.0.0.0/8"]),
    ),
    *bad(
        "weights stay in exactly one place",
        "inference.weights",
        nowhere=_weights(),
        empty=_weights(claim=""),
        two=_weights(claim="a", hostPath="/var/lib/kaito"),
    ),
    *bad(
        "weights stay in exactly one place",
        "inference.weights.hostPath",
        relative=_weights(hostPath="weights"),
        root=_weights(hostPath="/"),
        dots=_weights(hostPath="/var/../etc"),
    ),
    *good("weights stay in exactly one place", claim=_weights(claim="models")),
    *bad(
        "no pod and no weights beside a template",
        "inference",
        pod=_beside_template(pod={}),
        weights=_beside_template(weights={"claim": "a"}),
    ),
    *good("no pod and no weights beside a template", service=_beside_template(service={"type": "NodePort"})),
)
