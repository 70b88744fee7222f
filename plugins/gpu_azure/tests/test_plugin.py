"""What the plugin objects to before anything is asked of a cloud."""

from collections.abc import Mapping
from typing import Any

import pytest

from kaito_core.api import ModelPreset, parse_workspace
from kaito_gpu_azure.plugin import kaito_validate_workspace
from kaito_testing.registry import example_preset

GPU, CPU = example_preset(), example_preset(gpus=0, gpu_memory_gib=0)


def objections(
    instance_type: str, annotations: Mapping[str, str] | None = None, preset: ModelPreset | None = GPU
) -> list[str]:
    document: dict[str, Any] = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "w", "annotations": dict(annotations or {})},
        "resource": {"instanceType": instance_type},
        "inference": {"preset": {"name": "example-7b"}},
    }
    return [str(fault) for fault in kaito_validate_workspace(workspace=parse_workspace(document), preset=preset)]


def test_what_is_right() -> None:
    assert objections("Standard_NC24ads_A100_v4", {"kaito.sh/zones": "westeurope-1"}) == []
    assert objections("Standard_D16s_v5", preset=CPU) == []
    assert objections("Standard_D16s_v5", preset=None) == []  # with a template of its own; its pods may need none


def test_every_fault_is_found() -> None:
    found = objections("Standard_D16s_v5", {"kaito.sh/capacity-type": "cheap", "kaito.sh/zones": ""})
    assert [words.split(" must")[0] for words in found] == [
        "metadata.annotations[kaito.sh/capacity-type]",
        "metadata.annotations[kaito.sh/zones]",
        "resource.instanceType",
    ]


@pytest.mark.parametrize(
    ("instance_type", "provider", "faults"),
    [
        ("g5.xlarge", "", 0),  # another cloud's
        ("", "", 0),
        ("Standard_NC24ads_A100_v4", "gpu_onprem", 0),
        ("g5.xlarge", "gpu_azure", 1),
        ("", "gpu_azure", 1),
    ],
)
def test_only_its_own_workspaces_concern_it(instance_type: str, provider: str, faults: int) -> None:
    annotations = {"kaito.sh/zones": ""} | ({"kaito.sh/node-provider": provider} if provider else {})
    assert len(objections(instance_type, annotations)) == faults
