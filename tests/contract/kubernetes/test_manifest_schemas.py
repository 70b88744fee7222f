"""Rendered manifests against Kubernetes' own schemas, and rules that the schemas do not say."""

import json
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest

from helpers.rendered import CASES, LONG, REGISTRY, late_containers, manifests, pod_of
from kaito_core.api import NodeState, parse_workspace
from kaito_core.api.quantity import parse_quantity
from kaito_core.api.workspace.model import MAX_BLENDS
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings

SCHEMAS = kubernetes_validate.latest_version()
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
CANONICAL = re.compile(r"[1-9][0-9]*(Mi|Gi)?|[1-9][0-9]{0,2}m")


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
    late = late_containers()
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
def test_objects_are_small_enough_to_be_stored(case: str) -> None:
    for manifest in manifests(case):
        size = len(json.dumps(manifest).encode())
        assert size < 256 * 1024, manifest["kind"]  # etcd takes 1.5 MiB, a ConfigMap 1 MiB


def test_the_largest_configuration_fits_a_config_map() -> None:
    names = [f"{index}{'a' * 54}" for index in range(10)]
    strengths = dict.fromkeys(names, "-1.2345678901234567")
    largest = {
        "preset": {"name": "one"},
        "adapters": [{"source": {"name": name, "uri": f"hf://o/{name}"}} for name in names],
        "blends": [{"name": f"{index:03}{'b' * 52}", "strengths": strengths} for index in range(MAX_BLENDS)],
    }
    config_map = manifests(largest)[0]
    assert config_map["kind"] == "ConfigMap"
    assert len(json.dumps(config_map["data"]).encode()) < 1024 * 1024


def test_a_node_affinity_names_one_node_a_term() -> None:
    """The API server refuses more, and anything but metadata.name."""
    objects = manifests("plain", preferred=("node-a", "node-b"))
    affinity = pod_of(objects)["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [field for term in terms for field in term["matchFields"]] == [
        {"key": "metadata.name", "operator": "In", "values": [node]}
        for node in ("node-a", "node-b")
        for _ in ("size of its GPUs", "no label that says it")
    ]
    for manifest in objects:
        kubernetes_validate.validate(manifest, SCHEMAS, strict=True)


def test_the_node_affinity_of_a_template_is_kept() -> None:
    expression = {"key": "disk", "operator": "In", "values": ["fast"]}
    preference = [{"weight": 1, "preference": {"matchExpressions": [expression]}}]
    mine = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    picky = {
        "template": {
            "spec": {
                "containers": [{"name": "main", "image": "registry.example/llm:1"}],
                "tolerations": [mine],
                "affinity": {
                    "podAntiAffinity": {},
                    "nodeAffinity": {
                        required: {"nodeSelectorTerms": [{"matchExpressions": [expression]}]},
                        "preferredDuringSchedulingIgnoredDuringExecution": preference,
                    },
                },
            }
        }
    }
    objects = manifests(picky, preferred=("node-a", "node-b"))
    spec = pod_of(objects)["spec"]
    assert spec["tolerations"].count(mine) == 1
    assert "podAntiAffinity" in spec["affinity"]
    affinity = spec["affinity"]["nodeAffinity"]
    assert affinity["preferredDuringSchedulingIgnoredDuringExecution"] == preference
    terms = affinity[required]["nodeSelectorTerms"]
    assert [(term["matchExpressions"], term["matchFields"][0]["values"]) for term in terms] == [
        ([expression], ["node-a"]),
        ([expression], ["node-b"]),
    ]
    for manifest in objects:
        kubernetes_validate.validate(manifest, SCHEMAS, strict=True)


@every_case
def test_replicas_have_a_budget_that_lets_nodes_be_drained(case: str) -> None:
    objects = manifests(case)
    budgets = [manifest for manifest in objects if manifest["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == (case != "distributed")
    for budget in budgets:
        assert budget["spec"]["selector"]["matchLabels"].items() <= pod_of(objects)["metadata"]["labels"].items()
        assert budget["spec"]["maxUnavailable"] == 1


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


@every_case
@pytest.mark.parametrize(("value", "kind"), [("True", "LoadBalancer"), ("true", "ClusterIP"), ("False", "ClusterIP")])
def test_the_load_balancer_annotation(case: str, value: str, kind: str) -> None:
    objects = manifests(case, annotations={"kaito.sh/enablelb": value})
    services = {o["metadata"]["name"]: o["spec"].get("type") for o in objects if o["kind"] == "Service"}
    assert services[LONG] == kind
    assert services.get(f"{LONG}-headless") is None


@pytest.mark.parametrize("case", ["plain", "several gpus", "distributed"])
def test_gpus_go_by_the_name_that_the_nodes_have(case: str) -> None:
    spec = pod_of(manifests(case, gpu_resource="amd.com/gpu"))["spec"]
    (runtime,) = spec["containers"]
    for kind in ("limits", "requests"):
        assert {resource for resource in runtime["resources"][kind] if "/" in resource} == {"amd.com/gpu"}
    assert {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]


def test_pull_secrets_reach_the_pod() -> None:
    """The kubelet uses a pod's pull secrets for all its containers, ephemeral ones included."""
    names = [secret["name"] for secret in pod_of(manifests("own weights"))["spec"]["imagePullSecrets"]]
    assert names == ["pull", "other"]
    assert {"name": "pull"} in pod_of(manifests("adapters"))["spec"]["imagePullSecrets"]


@pytest.mark.parametrize(("surge", "unavailable"), [(0, 1), (2, 0)])
def test_a_rolling_update_makes_progress(surge: int, unavailable: int) -> None:
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "inference": CASES["plain"],
    }
    resolved = resolve(parse_workspace(document), REGISTRY)
    deployment = desired(resolved, NodeState(()), Settings(max_surge=surge)).workload
    rolling = deployment["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (surge, unavailable)
    runtime = deployment["spec"]["template"]["spec"]["containers"][0]
    startup = runtime["startupProbe"]["periodSeconds"] * runtime["startupProbe"]["failureThreshold"]
    assert deployment["spec"]["progressDeadlineSeconds"] > startup
