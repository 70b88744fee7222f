"""Rendered manifests against Kubernetes' own schemas, and rules that the schemas do not say."""

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

from kaito_core.api import GpuSku, KubeObject, NodeState, parse_workspace
from kaito_core.api.quantity import parse_quantity
from kaito_core.reconcile.plan import desired_manifests
from kaito_core.reconcile.podspec import adapter_container
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings
from kaito_core.testing.registry import example_preset, registry_with

SCHEMAS = kubernetes_validate.latest_version()
LONG = "w" * 52
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
CANONICAL = re.compile(r"[1-9][0-9]*(Mi|Gi)?")

REGISTRY = registry_with(
    [
        example_preset(name="one"),
        example_preset(name="cpu", gpus=0, gpu_memory_gib=0, memory_gib=1.3, disk_gib=0.7),
        example_preset(name="many", gpus=4, gpu_memory_gib=100),
        example_preset(name="spread", gpus=8, gpu_memory_gib=160, distributed=True),
    ]
)
ADAPTERS = [
    {"source": {"name": "a" * 55, "image": "registry.example/a:1", "imagePullSecrets": ["pull"]}},
    {"source": {"name": "volume", "volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}}},
    {"source": {"name": "files", "urls": ["https://files.example/a.tar"]}, "strength": -1},
    {"source": {"name": "hub", "uri": "hf://owner/name"}},
    {"source": {"name": "folder", "uri": "file:///srv/adapters/a"}},
]
OPTIONS = {"image": "registry.example/w:1", "imagePullSecrets": ["pull", "other"]}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"preset": {"name": "one"}},
    "cpu": {"preset": {"name": "cpu"}},
    "adapters": {"preset": {"name": "one"}, "adapters": ADAPTERS, "blends": [{"name": "mix", "strengths": {"hub": 1}}]},
    "several gpus": {"preset": {"name": "many"}},
    "distributed": {"preset": {"name": "spread"}, "adapters": ADAPTERS},
    "own weights": {"preset": {"name": "one", "accessMode": "private", "presetOptions": OPTIONS}},
    "template": {"template": {"spec": {"containers": [{"name": "main", "image": "registry.example/llm:1"}]}}},
}


def manifests(case: str, *, nodes: tuple[str, ...] = ("node-a", "node-b"), **metadata: Any) -> list[KubeObject]:
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": LONG, "namespace": "models", "uid": "uid", "generation": 3, **metadata},
        "resource": {"count": 2},
        "inference": CASES[case],
    }
    state = NodeState(nodes, sku=GpuSku("A", 4, 320, "A100") if nodes else None)
    return desired_manifests(resolve(parse_workspace(document), REGISTRY), state, Settings())


def pod_of(objects: list[KubeObject]) -> KubeObject:
    template: KubeObject = objects[-1]["spec"]["template"]
    return template


def quantities(node: Any, inside: str = "") -> Iterator[tuple[str, str]]:
    """Every quantity in a manifest, as (field, text)."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "sizeLimit" or inside in ("requests", "limits"):
                yield key, value
            else:
                yield from quantities(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from quantities(item)


every_case = pytest.mark.parametrize("case", CASES)


@every_case
@pytest.mark.parametrize("nodes", [("node-a", "node-b"), ()], ids=["pinned", "anywhere"])
def test_manifests_fit_the_schemas(case: str, nodes: tuple[str, ...]) -> None:
    for manifest in manifests(case, nodes=nodes):
        kubernetes_validate.validate(manifest, SCHEMAS, strict=True)


def test_a_pod_that_adapters_have_joined_fits_the_schema() -> None:
    pod = pod_of(manifests("plain"))
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "inference": CASES["adapters"],
    }
    steps = resolve(parse_workspace(document), REGISTRY).adapters
    late = [adapter_container(folder, step, "runtime:1", late=True) for folder, step in steps.items()]
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", **pod, "spec": {**pod["spec"], "ephemeralContainers": late}},
        SCHEMAS,
        strict=True,
    )
    names = [container["name"] for container in [*pod["spec"]["initContainers"], *pod["spec"]["containers"], *late]]
    assert all(LABEL.fullmatch(name) for name in names)
    assert len(set(names)) == len(names)
    # The API refuses these in an ephemeral container.
    assert not {"ports", "livenessProbe", "readinessProbe", "resources", "lifecycle"} & {key for c in late for key in c}


@every_case
def test_names_are_labels(case: str) -> None:
    objects = manifests(case)
    spec = pod_of(objects)["spec"]
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    names = [
        *(manifest["metadata"]["name"] for manifest in objects),
        *(container["name"] for container in containers),
        *(volume["name"] for volume in spec.get("volumes", [])),
        f"{objects[-1]['metadata']['name']}-0123456789",  # the label controller-revision-hash of a StatefulSet's pod
    ]
    assert [name for name in names if not LABEL.fullmatch(name)] == []
    assert len({container["name"] for container in containers}) == len(containers)


@every_case
def test_every_mount_has_a_volume_and_every_volume_a_mount(case: str) -> None:
    spec = pod_of(manifests(case))["spec"]
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    mounts = [(c["name"], m["name"], m["mountPath"]) for c in containers for m in c.get("volumeMounts", [])]
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    assert {volume for _, volume, _ in mounts} == set(volumes)
    assert len(set(volumes)) == len(volumes)
    assert len({(container, path) for container, _, path in mounts}) == len(mounts), "two volumes at one path"


@every_case
def test_shared_volumes_end_with_the_pod(case: str) -> None:
    volumes = {v["name"]: v for v in pod_of(manifests(case))["spec"].get("volumes", [])}
    for name in {"adapters", "weights", "dshm", "tmp"} & set(volumes):
        assert set(volumes[name]) == {"name", "emptyDir"}


@every_case
def test_selectors_match_the_pods_and_ports_lead_somewhere(case: str) -> None:
    objects = manifests(case)
    pod = pod_of(objects)
    labels = pod["metadata"]["labels"]
    workload = objects[-1]
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
    first = {"statefulset.kubernetes.io/pod-name": f"{LONG}-0"} if workload["kind"] == "StatefulSet" else {}
    services = [manifest for manifest in objects if manifest["kind"] == "Service"]
    assert {service["metadata"]["name"] for service in services} >= {workload["metadata"]["name"]}
    for service in services:
        assert service["spec"]["selector"].items() <= {**labels, **first}.items()
        if case != "template":
            open_ports = {port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports
    if workload["kind"] == "StatefulSet":
        assert workload["spec"]["serviceName"] in {service["metadata"]["name"] for service in services}


@every_case
def test_quantities_are_written_as_the_api_writes_them(case: str) -> None:
    for field, text in quantities(manifests(case)):
        assert CANONICAL.fullmatch(text), f"{field}: {text}"
        assert parse_quantity(text) > 0
        assert not (text.endswith("Mi") and int(text[:-2]) % 1024 == 0), f"{field}: {text} is whole Gi"


@every_case
def test_everything_is_owned_and_labelled(case: str) -> None:
    for manifest in manifests(case):
        (owner,) = manifest["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"], owner["controller"]) == ("Workspace", "uid", True)
        assert manifest["metadata"]["namespace"] == "models"
        assert manifest["metadata"]["labels"]["kaito.sh/workspace"] == LONG


def test_what_is_rendered_without_a_cluster_has_no_owner() -> None:
    assert all("ownerReferences" not in manifest["metadata"] for manifest in manifests("plain", uid=""))


@pytest.mark.parametrize(("case", "gpus"), [("plain", "1"), ("cpu", None), ("several gpus", "4"), ("distributed", "4")])
def test_gpus_are_asked_for_and_tolerated(case: str, gpus: str | None) -> None:
    spec = pod_of(manifests(case))["spec"]
    (runtime,) = spec["containers"]
    assert runtime["resources"].get("limits", {}).get("nvidia.com/gpu") == gpus
    assert runtime["resources"]["requests"].get("nvidia.com/gpu") == gpus
    assert ("tolerations" in spec) == (gpus is not None)


def test_the_images_of_adapters_copy_their_own_data() -> None:
    weights, first, *others = pod_of(manifests("adapters"))["spec"]["initContainers"]
    assert weights["name"] == "weights"
    assert (first["name"], first["image"]) == (f"adapter-{'a' * 55}", "registry.example/a:1")
    assert "cp -r /data/." in first["command"][-1]
    assert [container["name"] for container in others] == [
        "adapter-volume",
        "adapter-files",
        "adapter-hub",
        "adapter-folder",
    ]


@pytest.mark.parametrize(("value", "kind"), [("True", "LoadBalancer"), ("true", "ClusterIP"), ("False", "ClusterIP")])
def test_the_load_balancer_annotation(value: str, kind: str) -> None:
    service = manifests("plain", annotations={"kaito.sh/enablelb": value})[1]
    assert (service["kind"], service["spec"]["type"]) == ("Service", kind)


@pytest.mark.parametrize(("surge", "unavailable"), [(0, 1), (2, 0)])
def test_a_rolling_update_makes_progress(surge: int, unavailable: int) -> None:
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "inference": CASES["plain"],
    }
    resolved = resolve(parse_workspace(document), REGISTRY)
    deployment = desired_manifests(resolved, NodeState(()), Settings(max_surge=surge))[-1]
    rolling = deployment["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (surge, unavailable)
    runtime = deployment["spec"]["template"]["spec"]["containers"][0]
    startup = runtime["startupProbe"]["periodSeconds"] * runtime["startupProbe"]["failureThreshold"]
    assert deployment["spec"]["progressDeadlineSeconds"] > startup
