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


@pytest.mark.parametrize(
    "name",
    [
        "Standard_NC24ads_A100_v4",
        "standard_nc24ads_a100_V4",
        "Standard_D16s_v5",
        "Standard_B1ls",
        "Standard_M8-2ms",
        "Standard_HB120-16rs_v3",
        "Standard_ND128isr_NDR_GB200_v6",
        "Standard_NC128ds_xl_RTXPRO6000BSE_v6",
    ],
)
def test_a_type_of_azure_is_known_by_its_name(name: str) -> None:
    assert AZURE.makes(name)


@pytest.mark.parametrize(
    "name", ["Standard_NOPE_v9", "Standard_", "Standard_16s", "NC24ads", "g5.xlarge", "Standard_NC6s v3", ""]
)
def test_another_name_is_none_of_azures(name: str) -> None:
    assert not AZURE.makes(name)


@pytest.mark.parametrize("name", ["Standard_D16s_v5", "standard_e8ds_v5", "Standard_F72s_v2", "Standard_HB120rs_v3"])
def test_series_without_gpus(name: str) -> None:
    assert AZURE.lacks_gpus(name)


def test_images_for_amd64_run_on_every_type_of_the_table() -> None:
    assert {AZURE.architecture(sku.name) for sku in SKUS} == {"amd64"}


@pytest.mark.parametrize("name", [*(sku.name for sku in SKUS), "Standard_ND96isr_H900_v9", "Standard_NP10s"])
def test_other_series_may_have_gpus(name: str) -> None:
    assert AZURE.makes(name)
    assert not AZURE.lacks_gpus(name)
