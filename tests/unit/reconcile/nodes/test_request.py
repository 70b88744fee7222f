"""The nodes that a Workspace asks a provider for."""

from typing import Any

from kaito_core.api import NodeRequest, parse_workspace
from kaito_core.reconcile.nodes.request import node_request
from kaito_testing.registry import example_preset


def template(**spec: Any) -> NodeRequest:
    container = {"name": "c", "image": "i:1", **spec.pop("container", {})}
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "inference": {"template": {"spec": {"containers": [container], **spec}}},
    }
    return node_request(parse_workspace(document), None)


def test_a_template_asks_for_the_gpus_of_its_containers() -> None:
    assert template().gpus == 0
    assert template(container={"resources": {"limits": {"cpu": "4", "nvidia.com/gpu": "2"}}}).gpus == 2
    assert template(container={"resources": {"limits": {"amd.com/gpu": 1}}}).gpus == 1
    assert template(container={"resources": {"limits": "lots"}}).gpus == 0


def test_the_request_says_what_the_pods_tolerate() -> None:
    mine = {"key": "team", "operator": "Exists"}
    assert mine in template(tolerations=[mine]).tolerations
    keys = {toleration["key"] for toleration in template(tolerations=[mine]).tolerations}
    assert keys == {"team", "sku", "nvidia.com/gpu", "amd.com/gpu"}


def test_the_request_to_a_provider() -> None:
    workspace = parse_workspace(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "demo", "namespace": "models", "uid": "u"},
            "resource": {
                "count": 2,
                "instanceType": "big",
                "preferredNodes": ["a"],
                "labelSelector": {
                    "matchLabels": {"x": "y"},
                    "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
                },
            },
            "inference": {"preset": {"name": "example-7b"}},
        }
    )
    request = node_request(workspace, example_preset(distributed=True, gpus=4, gpu_memory_gib=100))
    assert (request.workspace, request.namespace, request.uid, request.count) == ("demo", "models", "u", 2)
    assert (request.instance_type, request.preferred_nodes, dict(request.match_labels)) == ("big", ("a",), {"x": "y"})
    assert request.match_expressions == ({"key": "k", "operator": "In", "values": ("v",)},)
    assert (request.gpu_memory_gib, request.disk_gib) == (50.0, 50.0)
    on_cpu = node_request(workspace, example_preset(gpus=0, gpu_memory_gib=0))
    assert (on_cpu.gpus, on_cpu.tolerations) == (0, ())
    used = workspace.model_copy(update={"status": {"workerNodes": ["b", 7, "a"]}})
    assert node_request(used, example_preset()).held_nodes == ("b", "a")
    spoilt = workspace.model_copy(update={"status": {"workerNodes": "b"}})
    assert node_request(spoilt, example_preset()).held_nodes == ()
