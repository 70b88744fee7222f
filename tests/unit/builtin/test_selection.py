"""Which provider serves a Workspace that names none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from kaito_core.api import GpuSku, NodeProvider, ResourceType, parse_workspace
from kaito_core.api.cluster import Cluster
from kaito_core.api.nodes import NodeRequest, NodeState
from kaito_core.builtin.plugin import kaito_select_node_provider


@dataclass
class Provider:
    """A provider of one machine type."""

    name: str
    creates_nodes: bool
    machine: str = ""
    watches: Sequence[ResourceType] = ()

    def skus(self) -> Sequence[GpuSku]:
        return (GpuSku(self.machine, 1, 80, "X"),) if self.machine else ()

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        raise AssertionError("selection does no I/O")

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        raise AssertionError("selection does no I/O")


def workspace(instance_type: str) -> Any:
    return parse_workspace(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "w"},
            "resource": {"instanceType": instance_type},
            "inference": {"preset": {"name": "falcon-7b"}},
        }
    )


CLOUD, OTHER, PREPARED = (
    Provider("cloud", True, "Big_v1"),
    Provider("other", True, "Big_v2"),
    Provider("prepared", False),
)


@pytest.mark.parametrize(
    ("instance_type", "candidates", "chosen"),
    [
        ("Big_v2", [PREPARED, CLOUD, OTHER], OTHER),
        ("big_V1", [PREPARED, CLOUD, OTHER], CLOUD),
        ("unheard", [CLOUD, PREPARED], PREPARED),
        ("", [CLOUD, PREPARED], PREPARED),
        ("", [CLOUD, OTHER], None),
        ("unheard", [CLOUD], None),
        ("", [], None),
    ],
)
def test_selection(instance_type: str, candidates: list[NodeProvider], chosen: NodeProvider | None) -> None:
    assert kaito_select_node_provider(workspace=workspace(instance_type), candidates=candidates) is chosen
