"""Which nodes fit, in which order, and the reasons for the others."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaito_core.api import KubeObject, NodeRequest
from kaito_gpu_onprem.fit import gpu_count, node_state, rejection


def node(name: str = "gpu-1", *, gpus: object = "1", labels: dict[str, str] | None = None, **spec: Any) -> KubeObject:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": gpus}},
    }


#: What pods with GPUs tolerate.
GPU_TAINTS = (
    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
)


def request(**changes: Any) -> NodeRequest:
    given = {"workspace": "w", "namespace": "n", "uid": "u", "count": 1, "gpus": 1, "tolerations": GPU_TAINTS}
    return NodeRequest(**{**given, **changes})


UNREADY = {"type": "Ready", "status": "False", "message": "no disk"}


def names(state: Any) -> list[str]:
    return [rejected.name for rejected in state.rejected]


class TestChoice:
    def test_preferred_nodes_come_first_in_their_order_then_names(self) -> None:
        labels = {"pool": "a"}
        nodes = [node(name, labels=labels) for name in ("d", "b", "c", "a")]
        state = node_state(nodes, request(preferred_nodes=("c", "b"), match_labels=labels))
        assert state.ready == ("c", "b", "a", "d")

    def test_preferred_nodes_without_labels_are_the_only_ones(self) -> None:
        state = node_state([node("a"), node("b")], request(preferred_nodes=("b",)))
        assert (state.ready, state.rejected) == (("b",), ())

    def test_a_preferred_node_must_have_the_labels(self) -> None:
        nodes = [node("a", labels={"pool": "a"}), node("b")]
        state = node_state(nodes, request(preferred_nodes=("b",), match_labels={"pool": "a"}))
        assert (state.ready, names(state)) == (("a",), ["b"])
        assert state.rejected[0].reason == "does not match the label selector: pool=a"

    def test_without_restriction_any_node_that_fits(self) -> None:
        state = node_state([node("b"), node("a"), node("c", gpus="0")], request())
        assert (state.ready, names(state)) == (("a", "b"), ["c"])

    def test_nodes_without_the_labels_are_not_listed(self) -> None:
        state = node_state([node("a")], request(match_labels={"pool": "a"}))
        assert state.rejected == ()
        assert "no node matches the label selector (pool=a)" in state.message

    def test_expressions_restrict_too(self) -> None:
        expression = {"key": "gpu", "operator": "In", "values": ["a100", "h100"]}
        nodes = [node("a", labels={"gpu": "t4"}), node("b", labels={"gpu": "h100"})]
        assert node_state(nodes, request(match_expressions=(expression,))).ready == ("b",)

    def test_too_few_nodes(self) -> None:
        state = node_state([node("a"), node("b", unschedulable=True)], request(count=2))
        assert (state.ready, state.reason, state.failed) == (("a",), "NodesNotReady", False)
        assert state.message.startswith("1 of 2 nodes fit: b is cordoned")
        assert "resource.preferredNodes" in state.message

    def test_enough_nodes_need_no_message(self) -> None:
        state = node_state([node("a"), node("b", unschedulable=True)], request())
        assert (state.reason, state.message, names(state)) == ("", "", ["b"])

    def test_no_gpu_and_no_restriction_is_always_met(self) -> None:
        assert node_state([], request(gpus=0, count=3)).reason == ""
        assert node_state([node("a", gpus="0")], request(gpus=0, count=3)).ready == ("a",)

    def test_no_gpu_but_restricted_is_checked(self) -> None:
        assert node_state([node("a", gpus="0")], request(gpus=0, preferred_nodes=("a",))).ready == ("a",)
        assert node_state([], request(gpus=0, preferred_nodes=("a",))).reason == "NodesNotReady"

    def test_a_missing_preferred_node_is_named(self) -> None:
        state = node_state([], request(preferred_nodes=("ghost",)))
        assert "ghost does not exist in this cluster" in state.message

    def test_an_empty_cluster_is_reported(self) -> None:
        assert "the cluster has no nodes" in node_state([], request()).message

    def test_long_lists_are_cut(self) -> None:
        state = node_state([node(f"n{i:02}", gpus="0") for i in range(30)], request())
        assert len(state.rejected) == 30
        assert "n19" in state.message
        assert "n20" not in state.message
        assert "10 more nodes do not fit" in state.message


class TestRejection:
    @pytest.mark.parametrize(
        ("broken", "words"),
        [
            (node(unschedulable=True), "kubectl uncordon gpu-1"),
            (node(taints=[{"key": "team", "value": "b", "effect": "NoSchedule"}]), "team=b:NoSchedule"),
            (node(taints=[{"key": "sku", "value": "gpu", "effect": "NoExecute"}]), "sku=gpu:NoExecute"),
            (node(taints=[{"key": "sku", "value": "cpu", "effect": "NoSchedule"}]), "sku=cpu:NoSchedule"),
            (node(gpus="0"), "has no GPU"),
            (node(gpus=""), "has '' as nvidia.com/gpu in status.allocatable, which must be a whole number"),
            (node(gpus="many"), "has 'many' as nvidia.com/gpu"),
            (node(gpus="-3"), "has '-3' as nvidia.com/gpu"),
            (node(gpus=None), "has 'None' as nvidia.com/gpu"),
            (node(gpus=10**30), "has '1000000000000000000000000000000' as nvidia.com/gpu"),
            (node(gpus="1e300"), "has '1e300' as nvidia.com/gpu"),
            ({**node(), "status": {**node()["status"], "allocatable": {}}}, "has no GPU"),
            ({"metadata": {"name": "bare"}}, "its kubelet has not reported"),
            (
                {**node(), "status": {"conditions": [{"type": "Ready", "status": "False", "message": "no disk"}]}},
                "no disk",
            ),
            ({"metadata": {"name": "x", "deletionTimestamp": "2024-01-01T00:00:00Z"}}, "is being deleted"),
        ],
    )
    def test_reason(self, broken: KubeObject, words: str) -> None:
        assert words in rejection(broken, request())

    @pytest.mark.parametrize(
        "fine",
        [
            node(),
            node(gpus=8),
            node(taints=[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]),
            node(taints=[{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]),
            node(taints=[{"key": "team", "value": "b", "effect": "PreferNoSchedule"}]),
            {**node(), "status": {**node()["status"], "allocatable": {"amd.com/gpu": "2"}}},
        ],
    )
    def test_fits(self, fine: KubeObject) -> None:
        assert rejection(fine, request()) == ""

    def test_pods_without_gpus_do_not_tolerate_gpu_nodes(self) -> None:
        tainted = node(taints=[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}])
        assert "sku=gpu" in rejection(tainted, request(gpus=0, tolerations=()))

    @pytest.mark.parametrize(
        ("toleration", "tolerated"),
        [
            ({"key": "team", "value": "b", "effect": "NoSchedule"}, True),
            ({"key": "team", "value": "b"}, True),
            ({"key": "team", "operator": "Exists"}, True),
            ({"operator": "Exists"}, True),
            ({"key": "team", "value": "c"}, False),
            ({"key": "team", "operator": "Exists", "effect": "NoExecute"}, False),
            ({"key": "other", "operator": "Exists"}, False),
        ],
    )
    def test_the_tolerations_of_the_pods_count(self, toleration: dict[str, str], tolerated: bool) -> None:
        tainted = node(taints=[{"key": "team", "value": "b", "effect": "NoSchedule"}])
        assert (rejection(tainted, request(tolerations=(toleration,))) == "") is tolerated

    def test_enough_gpus(self) -> None:
        assert rejection(node(gpus="2"), request(gpus=2)) == ""
        assert rejection(node(gpus="1"), request(gpus=2)) == "has 1 GPUs, 2 needed"

    def test_gpu_memory_of_the_whole_node(self) -> None:
        labels = {"nvidia.com/gpu.memory": "81559"}  # what an H100 of 80 GB reports
        assert rejection(node(gpus="2", labels=labels), request(gpu_memory_gib=160)) == ""
        small = rejection(node(gpus="2", labels=labels), request(gpu_memory_gib=161))
        assert small == "has 160 GiB of GPU memory, 161 GiB needed"

    @pytest.mark.parametrize(
        ("allocatable", "reason"),
        [
            ({}, ""),  # the scheduler knows
            ({"memory": "16Gi", "ephemeral-storage": "50Gi"}, ""),
            ({"memory": "lots", "ephemeral-storage": ""}, ""),
            ({"memory": "8Gi", "ephemeral-storage": "500Gi"}, "has 8 GiB of main memory, 16 GiB needed"),
            ({"memory": "128Gi", "ephemeral-storage": "21474836480"}, "has 20 GiB of disk, 50 GiB needed"),
            ({"memory": "16777215Ki"}, "has 15.9 GiB of main memory, 16 GiB needed"),
        ],
    )
    @pytest.mark.parametrize("gpus", [0, 1])
    def test_main_memory_and_disk(self, allocatable: dict[str, str], reason: str, gpus: int) -> None:
        small = node()
        small["status"]["allocatable"] |= allocatable
        assert rejection(small, request(gpus=gpus, memory_gib=16, disk_gib=50)) == reason

    @pytest.mark.parametrize("text", ["", "lots", "-5", "1e9", "9" * 400])
    def test_unreadable_gpu_memory_is_unknown(self, text: str) -> None:
        assert rejection(node(labels={"nvidia.com/gpu.memory": text}), request(gpu_memory_gib=500)) == ""

    def test_instance_type(self) -> None:
        wants = request(instance_type="Standard_NC24ads_A100_v4")
        same = node(labels={"node.kubernetes.io/instance-type": "standard_nc24ads_a100_v4"})
        other = node(labels={"node.kubernetes.io/instance-type": "dgx"})
        assert rejection(same, wants) == ""
        assert rejection(node(), wants) == ""  # no label, no objection
        assert rejection(other, wants) == "is a dgx, but resource.instanceType is Standard_NC24ads_A100_v4"


class TestSku:
    def test_smallest_of_the_first_nodes(self) -> None:
        def sized(name: str, gpus: str, memory: str) -> KubeObject:
            labels = {"nvidia.com/gpu.memory": memory, "nvidia.com/gpu.product": "X"}
            return node(name, gpus=gpus, labels=labels)

        nodes = [sized("a", "8", "81920"), sized("b", "2", "40960"), sized("c", "1", "16384")]
        sku = node_state(nodes, request(count=2)).sku
        assert sku is not None
        assert (sku.gpus, sku.gpu_memory_gib, sku.gpu_model) == (2, 80, "X")

    def test_unknown_size(self) -> None:
        assert node_state([node("a")], request()).sku is None


def amd(name: str) -> KubeObject:
    return {**node(name), "status": {**node()["status"], "allocatable": {"amd.com/gpu": "1"}}}


class TestKind:
    """All pods of a Workspace ask for GPUs by one name."""

    def test_the_name_is_that_of_the_nodes(self) -> None:
        assert node_state([node("a")], request()).gpu_resource == "nvidia.com/gpu"
        assert node_state([amd("a")], request()).gpu_resource == "amd.com/gpu"
        assert node_state([node("a")], request(gpus=0)).gpu_resource == ""

    def test_nodes_of_another_kind_are_named(self) -> None:
        state = node_state([amd("a"), node("b"), node("c")], request())
        assert (state.ready, state.gpu_resource) == (("a",), "amd.com/gpu")
        assert [(node.name, node.reason) for node in state.rejected] == [
            ("b", "has nvidia.com/gpu, but the other nodes have amd.com/gpu"),
            ("c", "has nvidia.com/gpu, but the other nodes have amd.com/gpu"),
        ]

    def test_the_kind_of_which_there_are_enough(self) -> None:
        state = node_state([amd("a"), node("b"), node("c")], request(count=2))
        assert (state.ready, state.gpu_resource, state.reason) == (("b", "c"), "nvidia.com/gpu", "")

    def test_the_kind_in_use_stays(self) -> None:
        state = node_state([amd("a"), node("b")], request(held_nodes=("b",)))
        assert (state.ready, state.gpu_resource) == (("b",), "nvidia.com/gpu")


class TestShared:
    """GPUs that other Workspaces have."""

    def test_are_not_offered_twice(self) -> None:
        state = node_state([node("a"), node("b")], request(taken={"a": {"Workspace 'team/other'": 1}}))
        assert state.ready == ("b",)
        assert state.rejected[0].reason == "has 0 of 1 GPUs free (Workspace 'team/other' uses 1), 1 needed"

    def test_the_message_says_who_has_them(self) -> None:
        state = node_state(
            [node("a", gpus="2")], request(taken={"a": {"Workspace 'team/x'": 1, "Workspace 'team/y'": 1}})
        )
        assert state.reason == "NodesNotReady"
        assert "(Workspace 'team/x' uses 1, Workspace 'team/y' uses 1)" in state.message

    def test_what_is_left_is_offered(self) -> None:
        labels = {"nvidia.com/gpu.memory": "81920"}
        shared = request(taken={"a": {"Workspace 'team/x'": 6}})
        state = node_state([node("a", gpus="8", labels=labels)], shared)
        assert state.ready == ("a",) and state.sku is not None
        assert (state.sku.gpus, state.sku.gpu_memory_gib) == (2, 160)

    def test_memory_is_that_of_what_is_left(self) -> None:
        labels = {"nvidia.com/gpu.memory": "81920"}
        shared = request(taken={"a": {"Workspace 'team/x'": 7}}, gpu_memory_gib=100)
        words = rejection(node("a", gpus="8", labels=labels), shared)
        assert words == ("has 80 GiB of GPU memory with 1 of 8 GPUs free (Workspace 'team/x' uses 7), 100 GiB needed")

    def test_more_taken_than_there_is(self) -> None:
        assert "has 0 of 1 GPUs free" in rejection(node("a"), request(taken={"a": {"Workspace 'team/x'": 9}}))


@given(st.one_of(st.text(max_size=30), st.integers(), st.floats(), st.none(), st.lists(st.integers(), max_size=3)))
def test_absurd_allocatable_values_do_not_crash(value: object) -> None:
    assert 0 <= gpu_count(node(gpus=value)) <= 1024


json = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from(["labels", "name", "allocatable"]), inner, max_size=3),
)


@given(st.fixed_dictionaries({}, optional={"metadata": json, "status": json}))
def test_malformed_nodes_do_not_crash(broken: KubeObject) -> None:
    assert node_state([broken], request()).ready == ()
