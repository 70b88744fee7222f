"""When claims are made again after some that came to nothing, and what is remembered of them."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito_core.api import KubeObject, NodeState
from kaito_gpu_azure.provider import AzureProvider
from kaito_karpenter import NODECLAIMS
from kaito_karpenter.attempts import LONGEST_WAIT, Attempts, wait
from kaito_karpenter.testing import claim, condition, node, request
from kaito_testing.world.memory_cluster import MemoryCluster

QUOTA = "exceeding approved standardNCADSA100v4Family Cores quota"
NO_CAPACITY = condition("Launched", "False", "InsufficientCapacityError", QUOTA)
NOT_FOUND = condition("Registered", "Unknown", "NodeNotFound", "Node not registered with cluster")


class Karpenter:
    """An operator's passes over one Workspace, with a clock; what it remembers is in the Workspace's status."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.now = datetime(2026, 5, 1, 12, tzinfo=UTC)
        self.notes: dict[str, str] = {}

    def look(self, **changes: Any) -> NodeState:
        """A pass, of an operator that has just been started."""
        provider = AzureProvider(now=lambda: self.now)
        state = asyncio.run(provider.ensure(request(notes=self.notes, **changes), self.cluster))
        self.notes = dict(state.notes)
        return state

    def names(self) -> list[str]:
        return [found["metadata"]["name"] for found in self.claims()]

    def claims(self) -> list[KubeObject]:
        return list(asyncio.run(self.cluster.list(NODECLAIMS)))

    def say(self, *conditions: KubeObject) -> None:
        for name in self.names():
            self.cluster.patch_status(NODECLAIMS, name, {"conditions": list(conditions)})

    def refuse(self) -> None:
        """Deletes all claims without a word, as some Karpenters do."""
        for name in self.names():
            asyncio.run(self.cluster.delete(NODECLAIMS, name))

    def fulfil(self) -> None:
        for name in self.names():
            self.cluster.patch_status(NODECLAIMS, name, claim(name, node=f"node-{name}")["status"])
            asyncio.run(self.cluster.apply(node(f"node-{name}")))

    def wait(self, state: NodeState) -> timedelta:
        """Waits as long as a state asks for, and returns how long that was."""
        assert state.wake_after_seconds is not None
        waited = timedelta(seconds=state.wake_after_seconds)
        self.now += waited
        return waited


@pytest.fixture
def karpenter() -> Karpenter:
    return Karpenter()


def test_a_claim_that_goes_away_is_not_made_again_at_once(karpenter: Karpenter) -> None:
    karpenter.look()
    karpenter.refuse()
    state = karpenter.look()
    assert (karpenter.names(), state.reason, state.failed) == ([], "NodeClaimDeleted", True)
    assert "was deleted before it was ready" in state.message
    assert f"created again at {karpenter.notes['nextAttempt']}" in state.message
    assert karpenter.look() == state  # by an operator that has been started since, too
    karpenter.wait(state)
    again = karpenter.look()
    assert (len(karpenter.names()), again.reason, again.failed) == (1, "NodeClaimNotReady", False)
    assert "attempt 2" in again.message


def test_each_wait_is_longer_than_the_one_before(karpenter: Karpenter) -> None:
    waits = []
    for _ in range(12):
        karpenter.look()
        karpenter.refuse()
        waits.append(karpenter.wait(karpenter.look()))
    assert waits[0] >= timedelta(seconds=15)
    assert all(later > earlier for earlier, later in itertools.pairwise(waits[:5]))
    assert max(waits) <= LONGEST_WAIT < min(waits[-3:]) * 2


def test_workspaces_that_failed_together_do_not_ask_together() -> None:
    waits = {wait(3, f"uid-{number}") for number in range(50)}
    assert len(waits) > 25
    assert all(timedelta(seconds=60) <= found <= timedelta(seconds=120) for found in waits)


@pytest.mark.parametrize(
    ("said", "reason"), [(NO_CAPACITY, "InsufficientCapacity"), (NOT_FOUND, "NodeClaimDeleted")], ids=["quota", "node"]
)
def test_what_a_claim_said_of_itself_is_remembered(karpenter: Karpenter, said: KubeObject, reason: str) -> None:
    karpenter.look()
    karpenter.say(*([] if said is NO_CAPACITY else [condition("Launched", "True")]), said)
    karpenter.look()
    karpenter.refuse()
    state = karpenter.look()
    assert (state.reason, state.failed) == (reason, True)
    assert said["message"] in state.message
    karpenter.wait(state)
    assert said["message"] in karpenter.look().message  # while the next one is on its way


def test_the_words_of_an_event_come_first(karpenter: Karpenter) -> None:
    (name,) = karpenter.look().created
    karpenter.say(NOT_FOUND)
    karpenter.refuse()
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "NodeClaim", "name": name},
        "reason": "InsufficientCapacityError",
        "message": QUOTA,
        "lastTimestamp": karpenter.now.isoformat(),
    }
    asyncio.run(karpenter.cluster.apply(event))
    state = karpenter.look()
    assert state.reason == "InsufficientCapacity" and QUOTA in state.message
    karpenter.wait(state)
    karpenter.look()
    assert len(karpenter.names()) == 1  # the old event does not stop the next attempt


def test_a_claim_that_is_being_deleted_is_lost_already(karpenter: Karpenter) -> None:
    (name,) = karpenter.look().created
    (found,) = karpenter.claims()
    found["metadata"]["finalizers"] = ["karpenter.sh/termination"]
    asyncio.run(karpenter.cluster.apply(found))
    karpenter.look()
    karpenter.refuse()
    assert karpenter.look().failed
    assert karpenter.names() == [name]


def test_a_machine_that_served_is_replaced_at_once(karpenter: Karpenter) -> None:
    karpenter.look()
    karpenter.fulfil()
    state = karpenter.look()
    assert (state.reason, state.notes) == ("", {})
    karpenter.refuse()
    state = karpenter.look()
    assert (len(karpenter.names()), state.failed) == (1, False)


def test_success_ends_the_waits(karpenter: Karpenter) -> None:
    for _ in range(3):
        karpenter.look()
        karpenter.refuse()
        karpenter.wait(karpenter.look())
    karpenter.look()
    karpenter.fulfil()
    assert karpenter.look().notes == {}


def test_more_machines_are_asked_for_while_one_is_awaited(karpenter: Karpenter) -> None:
    karpenter.look()
    karpenter.look(count=3)
    assert len(karpenter.names()) == 3


def test_fewer_machines_are_no_failure(karpenter: Karpenter) -> None:
    karpenter.look(count=3)
    karpenter.fulfil()
    karpenter.look(count=3)
    assert karpenter.look(count=1).reason == ""


@pytest.mark.parametrize("change", [{"instance_type": "Standard_NC12s_v3"}, {"annotations": {"kaito.sh/zones": "a"}}])
def test_other_machines_are_asked_for_at_once(karpenter: Karpenter, change: dict[str, Any]) -> None:
    karpenter.look()
    karpenter.refuse()
    assert karpenter.look().failed
    state = karpenter.look(**change)
    assert (len(karpenter.names()), state.reason) == (1, "NodeClaimNotReady")


@pytest.mark.parametrize(
    "notes",
    [
        {"nextAttempt": "soon", "failures": "many"},
        {"nextAttempt": "2026-05-01T12:00:00", "failures": "1"},
        {"failures": "-1"},
        {"failures": "9" * 40, "nextAttempt": "9999-12-31T00:00:00Z"},
    ],
)
def test_notes_that_somebody_has_spoilt_are_none(karpenter: Karpenter, notes: dict[str, str]) -> None:
    karpenter.look()
    form = karpenter.notes["form"]
    karpenter.refuse()
    karpenter.notes = {"form": form, **notes}
    karpenter.look()
    assert len(karpenter.names()) == 1


def test_notes_are_read_as_they_were_written() -> None:
    when = datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC)
    attempts = Attempts("f", 3, when, ("a", "b"), "is not Launched", QUOTA)
    assert Attempts.read(attempts.notes(), "f", when) == attempts
    assert Attempts.read(attempts.notes(), "other", when) == Attempts("other")
