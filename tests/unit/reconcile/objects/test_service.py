"""The Service of a Workspace: types, annotations, load balancers and the port of a template."""

from typing import Any

import pytest

from helpers.rendered import CASES, manifests
from kaito_core.api import KubeObject
from kaito_core.errors import InvalidWorkspaceError


def service(case: str = "plain", annotations: dict[str, str] | None = None, **given: Any) -> KubeObject:
    inference = {**CASES[case], **({"service": given} if given else {})}
    objects = manifests(inference, annotations=annotations or {})
    (found,) = [o for o in objects if o["kind"] == "Service" and not o["metadata"]["name"].endswith("-headless")]
    return found


@pytest.mark.parametrize("case", ["plain", "template", "distributed"])
def test_an_internal_load_balancer(case: str) -> None:
    note = {"service.beta.kubernetes.io/azure-load-balancer-internal": "true"}
    found = service(
        case,
        type="LoadBalancer",
        loadBalancerClass="example.com/internal",
        loadBalancerSourceRanges=["10.0.0.0/8"],
    )
    assert found["spec"]["type"] == "LoadBalancer"
    assert found["spec"]["loadBalancerClass"] == "example.com/internal"
    assert found["spec"]["loadBalancerSourceRanges"] == ["10.0.0.0/8"]
    inference = {**CASES[case], "service": {"type": "LoadBalancer", "annotations": note}}
    (noted,) = [o for o in manifests(inference) if o["kind"] == "Service" and "annotations" in o["metadata"]]
    assert noted["metadata"]["annotations"] == note


@pytest.mark.parametrize(("value", "kind"), [("True", "LoadBalancer"), ("true", "ClusterIP"), ("", "ClusterIP")])
def test_upstreams_annotation_asks_for_a_load_balancer(value: str, kind: str) -> None:
    assert service(annotations={"kaito.sh/enablelb": value})["spec"]["type"] == kind


@pytest.mark.parametrize(("port", "target"), [("8080", 8080), ("http", "http"), ("65535", 65535)])
def test_a_template_may_listen_on_another_port(port: str, target: int | str) -> None:
    found = service("template", {"kaito.sh/port": port})
    assert found["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": target, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("case", "annotations", "given", "field"),
    [
        ("plain", {"kaito.sh/port": "8080"}, {}, "metadata.annotations[kaito.sh/port]"),
        ("template", {"kaito.sh/port": "0"}, {}, "metadata.annotations[kaito.sh/port]"),
        ("template", {"kaito.sh/port": "65536"}, {}, "metadata.annotations[kaito.sh/port]"),
        ("template", {"kaito.sh/port": "a b"}, {}, "metadata.annotations[kaito.sh/port]"),
        ("template", {"kaito.sh/port": "١"}, {}, "metadata.annotations[kaito.sh/port]"),
        ("plain", {"kaito.sh/enablelb": "True"}, {"type": "ClusterIP"}, "inference.service.type"),
        ("plain", {}, {"loadBalancerClass": "a"}, "inference.service.loadBalancerClass"),
        (
            "plain",
            {},
            {"type": "NodePort", "loadBalancerSourceRanges": ["::/0"]},
            "inference.service.loadBalancerSourceRanges",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(case: str, annotations: Any, given: Any, field: str) -> None:
    inference = {**CASES[case], "service": given}
    with pytest.raises(InvalidWorkspaceError) as caught:
        manifests(inference, annotations=annotations)
    assert [fault.field for fault in caught.value.errors] == [field]
