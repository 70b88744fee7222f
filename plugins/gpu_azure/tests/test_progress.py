"""What is reported about NodeClaims in progress, in the words of Karpenter and the cloud."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito_core.api import GpuSku, KubeObject
from kaito_gpu_azure.provider import AZURE
from kaito_karpenter.attempts import Attempts
from kaito_karpenter.machines import offers_gpus
from kaito_karpenter.progress import RECENT, capacity_words, claims_state
from kaito_karpenter.testing import claim, condition, node, request

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
FRESH = Attempts("f")
QUOTA = "Operation could not be completed as it results in exceeding approved Total Regional Cores quota"


def test_ready() -> None:
    state = claims_state(
        request(count=2),
        [claim("a", node="n1"), claim("b", node="n2")],
        {"n1": node("n1"), "n2": node("n2")},
        AZURE,
        FRESH,
    )
    assert (state.ready, state.reason, state.created) == (("n1", "n2"), "", ("a", "b"))
    assert state.sku is not None
    assert state.sku.gpu_memory_gib == 80


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ((), "is Karpenter running?"),
        ((condition("Launched", "Unknown", "AwaitingReconciliation", "object is awaiting"),), "is not Launched (Await"),
        (
            (condition("Launched", "True"), condition("Registered", "Unknown", "NodeNotFound")),
            "not Registered (NodeNotFound)",
        ),
        ((condition("Launched", "True"), condition("Registered", "True")), "is not Initialized"),
    ],
)
def test_the_first_stage_that_is_not_passed(conditions: tuple[KubeObject, ...], words: str) -> None:
    state = claims_state(request(), [claim("a", *conditions)], {}, AZURE, FRESH)
    assert (state.ready, state.reason, state.failed) == ((), "NodeClaimNotReady", False)
    assert words in state.message


def test_a_node_without_gpus_is_waited_for() -> None:
    state = claims_state(request(), [claim("a", node="n1")], {"n1": node("n1", gpus="0")}, AZURE, FRESH)
    assert (state.ready, state.reason) == ((), "NodeClaimNotReady")
    assert "n1, whose device plugin has not registered" in state.message
    assert claims_state(request(gpus=0), [claim("a", node="n1")], {}, AZURE, FRESH).ready == ("n1",)


NEW = "Standard_ND96isr_H900_v9"


class TestTypeThatIsInNoTable:
    def test_is_sized_by_what_its_node_reports(self) -> None:
        big = node("n1", gpus="8", **{"nvidia.com/gpu.memory": "147456", "nvidia.com/gpu.product": "NVIDIA-H900"})
        small = node("n2", gpus="7", **{"nvidia.com/gpu.memory": "147456", "nvidia.com/gpu.product": "NVIDIA-H900"})
        made = [claim("a", node="n1", instance_type=NEW), claim("b", node="n2", instance_type=NEW)]
        state = claims_state(request(instance_type=NEW, count=2), made, {"n1": big, "n2": small}, AZURE, FRESH)
        assert (state.reason, state.sku) == ("", GpuSku(NEW, 7, 7 * 144, "NVIDIA-H900"))

    def test_is_of_unknown_size_without_the_memory_of_its_gpus(self) -> None:
        state = claims_state(
            request(instance_type=NEW),
            [claim("a", node="n1", instance_type=NEW)],
            {"n1": node("n1", gpus="8")},
            AZURE,
            FRESH,
        )
        assert (state.ready, state.reason, state.sku) == (("n1",), "", None)

    def test_says_what_the_node_has(self) -> None:
        machine = node("n1", gpus="0")
        machine["status"]["allocatable"] |= {"cpu": "95640m", "memory": "1981806Mi"}
        state = claims_state(
            request(instance_type=NEW), [claim("a", node="n1", instance_type=NEW)], {"n1": machine}, AZURE, FRESH
        )
        assert state.reason == "NodeClaimNotReady"
        assert "has become node n1, which has 95640m CPUs, 1981806Mi of memory and no GPUs yet" in state.message

    def test_says_that_it_may_be_misspelt_while_it_is_awaited(self) -> None:
        wrong = "Standard_NC24ad_A100_v4"
        state = claims_state(request(instance_type=wrong), [claim("a", instance_type=wrong)], {}, AZURE, FRESH)
        assert f"Azure's table has no {wrong}; did you mean Standard_NC24ads_A100_v4?" in state.message


@pytest.mark.parametrize(
    "message", [QUOTA, "all requested instance types were unavailable during launch", "SkuNotAvailable"]
)
def test_a_refusal_in_a_condition_fails_with_its_words(message: str) -> None:
    state = claims_state(
        request(), [claim("a", condition("Launched", "False", "LaunchFailed", message))], {}, AZURE, FRESH
    )
    assert (state.reason, state.failed) == ("InsufficientCapacity", True)
    assert message in state.message
    assert "quota" in state.message


def test_a_launch_that_failed_for_another_reason_is_not_waited_for() -> None:
    failed = claim("a", condition("Launched", "False", "LaunchFailed", "the subnet is full"))
    state = claims_state(request(), [failed], {}, AZURE, FRESH)
    assert (state.reason, state.failed) == ("NodeClaimNotReady", True)
    assert "is not Launched (LaunchFailed: the subnet is full)" in state.message


def test_a_refusal_in_an_event_fails_with_its_words() -> None:
    state = claims_state(request(), [], {}, AZURE, Attempts("f", 1, NOW, failure=QUOTA))
    assert (state.reason, state.failed, state.created) == ("InsufficientCapacity", True, ())
    assert QUOTA in state.message


def event(message: str = QUOTA, *, age: timedelta = timedelta(0), **about: str) -> KubeObject:
    return {
        "involvedObject": {"kind": "NodeClaim", "name": "a", **about},
        "reason": "InsufficientCapacityError",
        "message": message,
        "lastTimestamp": (NOW - age).isoformat().replace("+00:00", "Z"),
    }


class TestEvents:
    def test_the_newest_counts(self) -> None:
        events = [
            event("quota: old", age=timedelta(minutes=1)),
            event("quota: new"),
            event("quota: older", age=RECENT / 2),
        ]
        assert capacity_words(events, ["a"], NOW) == "quota: new"

    @pytest.mark.parametrize(
        "unrelated",
        [
            event(age=RECENT),
            event(name="b"),
            event(kind="Pod"),
            {**event("fine"), "reason": "Launched"},
            {**event(), "lastTimestamp": "soon"},
            {"reason": "InsufficientCapacityError"},
        ],
    )
    def test_what_does_not_count(self, unrelated: KubeObject) -> None:
        assert capacity_words([unrelated], ["a"], NOW) == ""


@pytest.mark.parametrize(
    ("allocatable", "expected"),
    [({"nvidia.com/gpu": "2"}, True), ({"amd.com/gpu": "1"}, True), ({"nvidia.com/gpu": "0"}, False), ({}, False)],
)
def test_offers_gpus(allocatable: dict[str, Any], expected: bool) -> None:
    assert offers_gpus({"status": {"allocatable": allocatable}}) is expected
    assert offers_gpus(None) is False
