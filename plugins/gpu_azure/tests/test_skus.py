"""The table of machine types is one table, and agrees with itself."""

import re

import pytest

from kaito_gpu_azure.provider import AZURE
from kaito_gpu_azure.skus import SKUS


def test_names_are_unique_without_case() -> None:
    assert len({sku.name.casefold() for sku in SKUS}) == len(SKUS)


@pytest.mark.parametrize("sku", SKUS, ids=lambda sku: sku.name)
def test_numbers_are_those_of_the_gpu_model(sku: object) -> None:
    sizes = {"V100": {16, 32}, "T4": {16}, "A10": {4, 8, 12, 24}, "A100": {40, 80}, "H100": {80, 94}, "H200": {141}}
    memory = sku.memory_per_gpu_gib  # type: ignore[attr-defined]
    model = sku.gpu_model.split()[-1]  # type: ignore[attr-defined]
    assert memory in sizes.get(model, {32})


def test_gpus_are_those_that_the_name_implies() -> None:
    counts = {"NC24ads": 1, "NC48ads": 2, "NC96ads": 4, "NC6s": 1, "NC12s": 2, "NC24s": 4, "NC24rs": 4}
    for sku in SKUS:
        size = re.sub("^Standard_", "", sku.name).split("_")[0]
        assert sku.gpus == counts.get(size, sku.gpus)
        assert sku.gpus == (8 if size.startswith("ND") else sku.gpus)


@pytest.mark.parametrize("name", ["Standard_NC12s_v3", "standard_nc12s_v3", "STANDARD_NC12S_V3"])
def test_lookup_ignores_case(name: str) -> None:
    sku = AZURE.find_sku(name)
    assert sku is not None
    assert (sku.name, sku.gpus, sku.gpu_memory_gib) == ("Standard_NC12s_v3", 2, 32)


def test_unknown_type() -> None:
    assert AZURE.find_sku("p4d.24xlarge") is None
