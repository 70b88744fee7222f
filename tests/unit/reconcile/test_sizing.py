"""Pods and GPUs for a preset on the machines that there are. What does not fit is in test_plan."""

import pytest

from kaito_core.api import GpuSku, parse_workspace
from kaito_core.errors import DoesNotFitError
from kaito_core.reconcile.sizing import Sizing, node_request, size
from kaito_core.testing.registry import example_preset

LARGE = {"gpus": 2, "gpu_memory_gib": 90.0}


@pytest.mark.parametrize(
    ("preset", "count", "sku", "sizing"),
    [
        ({}, 1, None, Sizing(1, 1, 14)),
        ({}, 3, GpuSku("A", 8, 640, "A100"), Sizing(3, 1, 14)),
        (LARGE, 1, None, Sizing(1, 2, 90)),
        (LARGE, 1, GpuSku("A", 8, 640, "A100"), Sizing(1, 2, 90)),
        (LARGE, 1, GpuSku("V", 8, 128, "V100"), Sizing(1, 8, 90)),  # 6 would hold it, heads divide by 8
        ({**LARGE, "distributed": True}, 2, None, Sizing(2, 1, 45)),
        ({**LARGE, "distributed": True}, 2, GpuSku("V", 4, 64, "V100"), Sizing(2, 4, 45)),
        ({"gpus": 0, "gpu_memory_gib": 0}, 2, GpuSku("A", 1, 80, "A100"), Sizing(2, 0, 0)),
    ],
)
def test_size(preset: dict[str, float], count: int, sku: GpuSku | None, sizing: Sizing) -> None:
    assert size(example_preset(**preset), count, sku) == sizing


@pytest.mark.parametrize("sku", [GpuSku("none", 0, 0, ""), GpuSku("odd", 0, 100, ""), GpuSku("six", 6, 96, "V100")])
def test_machines_that_do_not_do(sku: GpuSku) -> None:
    with pytest.raises(DoesNotFitError, match=sku.name):
        size(example_preset(**LARGE), 1, sku)


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
    assert node_request(workspace, example_preset(gpus=0, gpu_memory_gib=0)).gpus == 0
