"""Pods and GPUs for a preset on a type of machine."""

import pytest

from kaito_core.api import GpuSku
from kaito_core.errors import DoesNotFitError
from kaito_core.reconcile.nodes.sizing import Sizing, size, startup_seconds
from kaito_testing.registry import example_preset

LARGE = {"gpus": 2, "gpu_memory_gib": 90.0}


@pytest.mark.parametrize(
    ("preset", "count", "sku", "sizing"),
    [
        ({}, 1, None, Sizing(1, 1, 14, 16)),
        ({}, 3, GpuSku("A", 8, 640, "A100"), Sizing(3, 1, 14, 16)),
        (LARGE, 1, None, Sizing(1, 2, 90, 16)),
        (LARGE, 1, GpuSku("A", 8, 640, "A100"), Sizing(1, 2, 90, 16)),
        (LARGE, 1, GpuSku("N", 1, 94, "H100 NVL"), Sizing(1, 1, 90, 16)),  # fewer, larger GPUs
        ({**LARGE, "heads": 128}, 1, GpuSku("N", 1, 94, "H100 NVL"), Sizing(1, 1, 90, 16)),
        (
            {"gpus": 4, "gpu_memory_gib": 144.0, "heads": 64},
            1,
            GpuSku("N", 2, 188, "H100 NVL"),
            Sizing(1, 2, 144, 16),
        ),
        ({"gpus": 4, "gpu_memory_gib": 100.0, "heads": 8}, 1, GpuSku("H", 3, 423, "H200"), Sizing(1, 1, 100, 16)),
        (LARGE, 1, GpuSku("V", 8, 128, "V100"), Sizing(1, 8, 90, 16)),  # 6 would hold it, heads divide by 8
        ({**LARGE, "distributed": True}, 2, None, Sizing(2, 1, 45, 8)),
        ({**LARGE, "distributed": True}, 2, GpuSku("V", 4, 64, "V100"), Sizing(2, 4, 45, 8)),
        ({**LARGE, "heads": 40}, 1, GpuSku("V", 8, 128, "V100"), Sizing(1, 8, 90, 16)),
        ({**LARGE, "heads": 10}, 1, GpuSku("A", 8, 192, "L4"), Sizing(1, 5, 90, 16)),  # 4 would hold it
        ({**LARGE, "heads": 8, "distributed": True}, 4, None, Sizing(4, 1, 22.5, 4)),
        ({**LARGE, "heads": 8, "distributed": True}, 2, GpuSku("V", 4, 64, "V100"), Sizing(2, 4, 45, 8)),
        ({"gpus": 0, "gpu_memory_gib": 0, "heads": 3}, 2, None, Sizing(2, 0, 0, 16)),
        ({"gpus": 0, "gpu_memory_gib": 0}, 2, GpuSku("A", 1, 80, "A100"), Sizing(2, 0, 0, 16)),
    ],
)
def test_size(preset: dict[str, float], count: int, sku: GpuSku | None, sizing: Sizing) -> None:
    assert size(example_preset(**preset), count, sku) == sizing


@pytest.mark.parametrize("sku", [GpuSku("none", 0, 0, ""), GpuSku("odd", 0, 100, ""), GpuSku("six", 6, 96, "V100")])
def test_machines_without_enough_gpus(sku: GpuSku) -> None:
    with pytest.raises(DoesNotFitError, match=sku.name):
        size(example_preset(**LARGE), 1, sku)


@pytest.mark.parametrize(
    ("preset", "count", "sku", "message"),
    [
        (
            {"gpu_memory_gib": 14.0, "heads": 71},
            1,
            GpuSku("two", 2, 24, "T4"),
            "resource.instanceType does not fit: preset 'example-7b' needs 71 GPUs of 12 GiB on each node, a number "
            "that shares its 71 heads equally, two has 2",
        ),
        (
            {**LARGE, "heads": 4},
            1,
            GpuSku("many", 16, 128, "T4"),
            "resource.instanceType does not fit: preset 'example-7b' has 4 heads, fewer than the GPUs of 8 GiB that "
            "would hold it, many has 16",
        ),
        (
            {**LARGE, "heads": 8, "distributed": True},
            3,
            None,
            "resource.count does not fit: preset 'example-7b' is cut by its 8 heads, which 3 nodes cannot share "
            "equally; use a number that divides 8",
        ),
    ],
)
def test_heads_that_cannot_be_shared(preset: dict[str, float], count: int, sku: GpuSku | None, message: str) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        size(example_preset(**preset), count, sku)
    assert str(caught.value) == message


def test_preset_whose_gpus_cannot_share_its_heads_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gpus must divide heads \(9\), got 2"):
        example_preset(**LARGE, heads=9)


KNOWN = (
    GpuSku("huge", 8, 640, "A100"),
    GpuSku("right", 2, 160, "A100"),
    GpuSku("wide", 6, 100, "V100"),  # holds it on 6 GPUs, of which a model can use 4
    GpuSku("small", 4, 64, "V100"),
)


def test_the_smallest_machine_that_fits_is_named() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        size(example_preset(**LARGE), 1, KNOWN[-1], KNOWN)
    assert str(caught.value) == (
        "resource.instanceType does not fit: preset 'example-7b' needs 90 GiB of GPU memory, small has 64 GiB; the "
        "smallest known machine type that fits is right (2 GPUs, 160 GiB)"
    )


def test_no_machine_is_named_that_does_not_fit() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        size(example_preset(gpus=16, gpu_memory_gib=2000.0), 1, KNOWN[-1], KNOWN)
    assert "smallest known" not in str(caught.value)


def test_loading_may_take_as_long_as_the_weights_are_large() -> None:
    small = example_preset(startup_seconds=600)
    weights = small.weights.model_copy(update={"size_gib": 129.0})
    assert startup_seconds(small) == 600
    assert startup_seconds(small.model_copy(update={"weights": weights})) == 2322
