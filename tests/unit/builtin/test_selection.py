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


@dataclass
class Cloud(Provider):
    """A provider that knows its cloud's machine types by their names."""

    prefix: str = ""

    def makes_type(self, instance_type: str) -> bool:
        return instance_type.startswith(self.prefix.capitalize())


def workspace(instance_type: str, holder: str = "") -> Any:
    return parse_workspace(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "w", "annotations": {"kaito.sh/nodes-provider": holder} if holder else {}},
            "resource": {"instanceType": instance_type},
            "inference": {"preset": {"name": "falcon-7b"}},
        }
    )


CLOUD, OTHER, PREPARED = (
    Provider("cloud", True, "Big_v1"),
    Provider("other", True, "Big_v2"),
    Provider("prepared", False),
)
BIG, HUGE = Cloud("big", True, "Big_v1", prefix="big"), Cloud("huge", True, prefix="huge")


def select(
    instance_type: str, candidates: Sequence[NodeProvider], node_types: Sequence[str] = (), holder: str = ""
) -> NodeProvider | None:
    return kaito_select_node_provider(
        workspace=workspace(instance_type, holder), candidates=candidates, node_types=frozenset(node_types)
    )


@pytest.mark.parametrize(
    ("instance_type", "candidates", "chosen"),
    [
        ("Big_v2", [PREPARED, CLOUD, OTHER], OTHER),
        ("big_V1", [PREPARED, CLOUD, OTHER], CLOUD),
        ("unheard", [CLOUD, PREPARED], None),
        ("", [CLOUD, PREPARED], PREPARED),
        ("", [CLOUD, OTHER], None),
        ("unheard", [CLOUD], None),
        ("", [], None),
        ("Huge_v9", [PREPARED, BIG, HUGE], HUGE),  # in no table, but a name of that cloud
        ("Big_v9", [HUGE, PREPARED, BIG], BIG),
        ("Big_v1", [Cloud("greedy", True, prefix=""), BIG], BIG),  # a table knows more than a pattern
    ],
)
def test_selection(instance_type: str, candidates: list[NodeProvider], chosen: NodeProvider | None) -> None:
    assert select(instance_type, candidates) is chosen


@pytest.mark.parametrize(
    ("instance_type", "node_types", "holder", "chosen"),
    [
        ("dgx-a100", ["dgx-a100"], "", PREPARED),
        ("DGX-A100", ["dgx-a100"], "", PREPARED),
        ("dgx-a100", ["dgx-h100"], "", None),
        ("Big_v9", ["big_v9"], "", PREPARED),  # prepared nodes are taken before others are paid for ...
        ("Big_v9", ["big_v9"], "big", BIG),  # ... but one that was made is not given up for them
        ("Big_v1", ["big_v1"], "", BIG),
        ("dgx-a100", ["dgx-a100"], "big", PREPARED),  # another type than the one that was made
    ],
)
def test_prepared_nodes_serve_the_type_that_they_have(
    instance_type: str, node_types: list[str], holder: str, chosen: NodeProvider | None
) -> None:
    assert select(instance_type, [BIG, PREPARED], node_types, holder) is chosen


def test_a_provider_that_fails_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Cloud):
        def skus(self) -> Sequence[GpuSku]:
            raise RuntimeError("no table today")

    assert select("Big_v1", [Broken("broken", True, prefix="big"), BIG]) is BIG
    assert "node provider 'broken' failed: no table today" in caplog.text


@pytest.mark.parametrize(("node_types", "chosen"), [([""], PREPARED), (["", "a"], PREPARED), (["a"], None), ([], None)])
def test_nodes_without_a_type_may_have_any_where_none_are_made(
    node_types: list[str], chosen: NodeProvider | None
) -> None:
    """Machines on premises have no such label, unless somebody gives it to them."""
    assert select("dgx-a100", [PREPARED], node_types) is chosen
    assert select("dgx-a100", [PREPARED, BIG], node_types) is None
