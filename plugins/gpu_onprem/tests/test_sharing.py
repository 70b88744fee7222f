"""Nodes whose GPUs are shares of cards: what a pod gets of one, and that no pod is given several."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaito_core.api import KubeObject, NodeRequest
from kaito_gpu_onprem.fit import node_state, rejection
from kaito_gpu_onprem.sharing import memory_gib, sharing

A100 = {
    "nvidia.com/gpu.memory": "40960",
    "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB",
    "nvidia.com/gpu.count": "2",
}
SLICED = {**A100, "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-SHARED", "nvidia.com/gpu.replicas": "4"}
MIG = {"nvidia.com/gpu.memory": "20096", "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"}


def node(gpus: int, labels: dict[str, str]) -> KubeObject:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "gpu-1", "labels": labels},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": str(gpus)}},
    }


def request(**changes: Any) -> NodeRequest:
    return NodeRequest(**{"workspace": "w", "namespace": "n", "uid": "u", "count": 1, "gpus": 1, **changes})


@pytest.mark.parametrize(
    ("gpus", "labels", "wanted", "reason"),
    [
        (8, SLICED, {"gpu_memory_gib": 10.0}, ""),
        (
            8,
            SLICED,
            {"gpu_memory_gib": 14.0},
            "has 10 GiB of GPU memory on each of its GPUs, that 4 pods share, 14 GiB needed",
        ),
        (8, SLICED, {"gpus": 2}, "has GPUs that 4 pods share: a pod can use one of them, 2 needed"),
        (2, A100, {"gpus": 2, "gpu_memory_gib": 80.0}, ""),
        (2, MIG, {"gpu_memory_gib": 16.0}, ""),
        (2, MIG, {"gpu_memory_gib": 24.0}, "has 20 GiB of GPU memory on each of its GPUs, that are slices of MIG"),
        (2, MIG, {"gpus": 2}, "has GPUs that are slices of MIG"),
    ],
)
def test_a_pod_has_one_share_and_its_memory(gpus: int, labels: Any, wanted: Any, reason: str) -> None:
    found = rejection(node(gpus, labels), request(**wanted))
    assert found.startswith(reason) and bool(found) == bool(reason)


def test_the_machine_of_shares_has_one_gpu_of_a_shares_memory() -> None:
    sku = node_state([node(8, SLICED)], request()).sku
    assert sku is not None
    assert (sku.gpus, sku.gpu_memory_gib) == (1, 10.0)


def test_without_the_number_of_pods_the_cards_say_it() -> None:
    labels = {key: value for key, value in SLICED.items() if key != "nvidia.com/gpu.replicas"}
    assert sharing(labels, 8) == "that 4 pods share"
    assert sharing({**labels, "nvidia.com/gpu.count": "none"}, 8) == ""


@given(st.dictionaries(st.sampled_from([*SLICED]), st.text(max_size=30)), st.integers(0, 1024))
def test_absurd_labels_are_no_error(labels: dict[str, str], gpus: int) -> None:
    assert memory_gib(labels, gpus) >= 0
    assert isinstance(sharing(labels, gpus), str)
