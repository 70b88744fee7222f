"""What a preset's pods take along for their cluster: in which containers it is, and that the operator's own counts."""

from typing import Any

import kubernetes_validate
import pytest

from helpers.rendered import REGISTRY, pod_of
from kaito_core.api import KubeObject, NodeState, parse_workspace
from kaito_core.errors import InvalidWorkspaceError
from kaito_core.reconcile.desired import Desired, desired
from kaito_core.reconcile.nodes.request import node_request
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings

ADAPTERS = [
    {"source": {"name": "image", "image": "registry.example/a:1"}},
    {"source": {"name": "hub", "uri": "hf://owner/name"}},
]
#: The containers of the runtime's image.
OURS = {"weights", "adapter-hub", "runtime"}
SECRET = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
PROXY = {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}


def plan(preset: str = "one", **pod: Any) -> Desired:
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo", "namespace": "team"},
        "inference": {"preset": {"name": preset}, "adapters": ADAPTERS, "pod": pod},
    }
    return desired(resolve(parse_workspace(document), REGISTRY), NodeState(()), Settings())


def template(preset: str = "one", **pod: Any) -> KubeObject:
    objects = list(plan(preset, **pod).objects)
    for manifest in objects:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    return pod_of(objects)


def containers(found: KubeObject) -> dict[str, KubeObject]:
    return {c["name"]: c for c in [*found["spec"]["initContainers"], *found["spec"]["containers"]]}


def variables(container: KubeObject) -> dict[str, Any]:
    names = [entry["name"] for entry in container.get("env", [])]
    assert len(set(names)) == len(names), "server-side apply refuses two variables of one name"
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}


def test_who_asks_for_nothing_gets_the_pod_of_before() -> None:
    assert template() == template(labels={}, tolerations=[])


@pytest.mark.parametrize("preset", ["one", "cpu", "many", "spread"])
def test_fields_of_the_pod(preset: str) -> None:
    given: dict[str, Any] = {
        "runtimeClassName": "nvidia",
        "priorityClassName": "high",
        "schedulerName": "volcano",
        "serviceAccountName": "models",
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["hub.example"]}],
        "dnsConfig": {"searches": ["example"]},
        "dnsPolicy": "None",
    }
    found = template(
        preset,
        **given,
        labels={"team": "search"},
        annotations={"sidecar.istio.io/inject": "false"},
        tolerations=[{"key": "spot", "operator": "Exists"}],
        imagePullSecrets=["registry"],
        securityContext={"fsGroup": 7, "runAsUser": 1000, "runAsGroup": 7},
    )
    spec = found["spec"]
    assert {key: spec[key] for key in given} == given
    assert found["metadata"]["labels"] == {"team": "search", "kaito.sh/workspace": "demo"}
    assert found["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert spec["tolerations"][-1] == {"key": "spot", "operator": "Exists"}
    assert {"name": "registry"} in spec["imagePullSecrets"]
    assert spec["securityContext"] == {"fsGroup": 7}
    users = {
        (c["securityContext"]["runAsUser"], c["securityContext"]["runAsGroup"]) for c in containers(found).values()
    }
    assert users == {(1000, 7)}
    assert spec["automountServiceAccountToken"] is False


def test_nodes_with_tolerated_taints_are_offered_to_the_workspace() -> None:
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "inference": {"preset": {"name": "one"}, "pod": {"tolerations": [{"key": "spot", "operator": "Exists"}]}},
    }
    resolved = resolve(parse_workspace(document), REGISTRY)
    request = node_request(resolved.workspace, resolved.preset, resolved.pod["tolerations"])
    assert {"key": "spot", "operator": "Exists"} in request.tolerations


def test_variables_reach_every_container_and_secrets_only_our_own_image() -> None:
    found = containers(template(env=[PROXY, SECRET], envFrom=[{"secretRef": {"name": "all"}}]))
    assert all(variables(container)["HTTPS_PROXY"] == PROXY["value"] for container in found.values())
    assert {name for name, container in found.items() if "TOKEN" in variables(container)} == OURS
    assert {name for name, container in found.items() if "envFrom" in container} == OURS


def test_an_adapter_that_joins_later_gets_the_same_but_no_part_of_a_volume() -> None:
    pod = {
        "env": [PROXY, SECRET],
        "caBundle": {"configMap": "company"},
        "volumes": [{"name": "data", "emptyDir": {}}],
        "volumeMounts": [
            {"name": "data", "mountPath": "/data", "subPath": "part"},
            {"name": "data", "mountPath": "/whole"},
        ],
    }
    late = {container["name"]: container for container in plan(**pod).late_containers.values()}
    (image,) = [container for name, container in late.items() if name.startswith("adapter-image")]
    (hub,) = [container for name, container in late.items() if name.startswith("adapter-hub")]
    assert variables(image)["HTTPS_PROXY"] and "TOKEN" not in variables(image) and "TOKEN" in variables(hub)
    assert [mount["mountPath"] for mount in hub["volumeMounts"]] == ["/mnt/adapter", "/tmp", "/whole", "/etc/kaito/ca"]
    assert not [mount for container in late.values() for mount in container["volumeMounts"] if "subPath" in mount]


def test_volumes_are_mounted_where_our_own_image_runs() -> None:
    mount = {"name": "data", "mountPath": "/data", "readOnly": True}
    found = template(volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "a"}}], volumeMounts=[mount])
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "a"}} in found["spec"]["volumes"]
    assert {name for name, container in containers(found).items() if mount in container["volumeMounts"]} == OURS


def test_a_private_authority_is_trusted_everywhere() -> None:
    found = template(
        caBundle={"configMap": "company", "key": "ca.pem"}, env=[{"name": "CURL_CA_BUNDLE", "value": "/x"}]
    )
    assert {"name": "ca-bundle", "configMap": {"name": "company"}} in found["spec"]["volumes"]
    for container in containers(found).values():
        env = variables(container)
        assert env["SSL_CERT_FILE"] == env["REQUESTS_CA_BUNDLE"] == "/etc/kaito/ca/ca.pem"
        assert env["CURL_CA_BUNDLE"] == "/x"
        assert {"name": "ca-bundle", "mountPath": "/etc/kaito/ca", "readOnly": True} in container["volumeMounts"]


def test_limits_hold_for_steps_too_and_requests_stay_below() -> None:
    asked = {"requests": {"cpu": 4, "memory": "20Gi"}, "limits": {"cpu": "8", "memory": "64Gi", "example.com/nic": 1}}
    found = containers(template(resources=asked))
    resources = found["runtime"]["resources"]
    assert resources["requests"] | {"cpu": "4", "memory": "20Gi"} == resources["requests"]
    assert resources["limits"] == {"cpu": "8", "memory": "64Gi", "example.com/nic": "1", "nvidia.com/gpu": "1"}
    for name in ("weights", "adapter-image", "adapter-hub"):
        assert found[name]["resources"] == {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "8", "memory": "64Gi"},
        }
    small = containers(template("cpu", resources={"requests": {"cpu": "50m"}, "limits": {"cpu": "50m"}}))
    assert small["weights"]["resources"] == {
        "requests": {"cpu": "50m", "memory": "256Mi"},
        "limits": {"cpu": "50m"},
    }


def test_replicas_are_spread_among_themselves() -> None:
    (given, whole) = ({"topologyKey": "zone"}, {"topologyKey": "rack", "maxSkew": 2, "labelSelector": {}})
    found = template(topologySpreadConstraints=[given, whole])["spec"]["topologySpreadConstraints"]
    assert found[0]["labelSelector"] == {"matchLabels": {"kaito.sh/workspace": "demo"}} and found[0]["maxSkew"] == 1
    assert found[1] | whole == found[1]


def test_a_node_meets_both_affinities() -> None:
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    term = {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}
    affinity = {"podAntiAffinity": {}, "nodeAffinity": {required: {"nodeSelectorTerms": [term]}}}
    found = template(affinity=affinity)["spec"]["affinity"]
    assert found["podAntiAffinity"] == {}
    terms = found["nodeAffinity"][required]["nodeSelectorTerms"]
    assert len(terms) == 2, "one for nodes that say the size of their GPUs, one for those that do not"
    assert all(term["matchExpressions"][0] in entry["matchExpressions"] for entry in terms)


@pytest.mark.parametrize(
    ("pod", "field", "words"),
    [
        (
            {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            "inference.pod.volumeMounts[0].name",
            "must be the name of an entry of inference.pod.volumes, got 'data' (known: none)",
        ),
        (
            {"resources": {"limits": {"memory": "1Gi"}}},
            "inference.pod.resources.limits[memory]",
            "must not be below the request, which is 16Gi, got '1Gi'",
        ),
        (
            {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}},
            "inference.pod.resources.limits[cpu]",
            "must not be below the request, which is 2, got '1'",
        ),
    ],
)
def test_what_does_not_agree_is_refused_by_field(pod: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidWorkspaceError) as caught:
        plan(**pod)
    (fault,) = caught.value.errors
    assert fault.field == field and fault.message.startswith(words)
