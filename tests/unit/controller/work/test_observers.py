"""Observers: which outcomes they hear of, and that a blocking one delays nothing else."""

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest

from kaito_core import hookimpl
from kaito_core.api import Workspace, parse_workspace
from kaito_core.controller.work import observers as module
from kaito_core.controller.work.observers import DELETED, Observers
from kaito_testing.registry import registry_with

KEY = ("ns", "w")


def workspace(uid: str = "1") -> Workspace:
    return parse_workspace(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "w", "namespace": "ns", "uid": uid},
            "inference": {"preset": {"name": "p"}},
        }
    )


def told(tell: Callable[[Observers], None]) -> list[tuple[str, str]]:
    """What a plugin is told, as (uid, outcome)."""
    heard: list[tuple[str, str]] = []

    async def main() -> None:
        observers = Observers(lambda workspace, outcome: heard.append((workspace.metadata.uid, outcome)))
        tell(observers)
        await observers.close()

    asyncio.run(main())
    return heard


def test_an_outcome_is_told_where_it_changed_and_when_the_workspace_is_deleted() -> None:
    def tell(observers: Observers) -> None:
        for outcome in ("Pending", "Pending", "Ready", "Ready", "Pending"):
            observers.tell(workspace(), outcome)
        observers.forget(KEY)
        observers.forget(KEY)
        observers.forget(("ns", "never heard of"))

    assert told(tell) == [("1", "Pending"), ("1", "Ready"), ("1", "Pending"), ("1", DELETED)]


def test_a_workspace_that_was_made_again_under_the_same_name_is_another_one() -> None:
    def tell(observers: Observers) -> None:
        observers.tell(workspace("1"), "Ready")
        observers.tell(workspace("2"), "Ready")

    assert told(tell) == [("1", "Ready"), ("1", DELETED), ("2", "Ready")]


def test_whatever_a_plugin_raises_it_is_told_the_next_outcome() -> None:
    heard: list[str] = []

    def call(_: Workspace, outcome: str) -> None:
        heard.append(outcome)
        raise SystemExit(3)

    async def main() -> None:
        observers = Observers(call)
        observers.tell(workspace(), "Pending")
        observers.tell(workspace(), "Ready")
        await observers.close()

    asyncio.run(main())
    assert heard == ["Pending", "Ready"]


class Blocking:
    """A plugin whose observer does not return before it is let go."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()

    @hookimpl
    def kaito_reconciled(self, workspace: Workspace, outcome: str) -> None:
        self.entered.set()
        assert self.leave.wait(30)


@pytest.fixture
def blocking(monkeypatch: pytest.MonkeyPatch) -> Blocking:
    monkeypatch.setattr(module, "_MOST_WAITING", 2)
    monkeypatch.setattr(module, "_END_SECONDS", 0.01)
    return Blocking()


def test_one_that_blocks_costs_the_event_loop_nothing_and_is_named(
    blocking: Blocking, caplog: pytest.LogCaptureFixture
) -> None:
    registry = registry_with()
    registry.register(blocking, "obs")

    async def main() -> None:
        observers = Observers(registry.reconciled)
        observers.tell(workspace(), "first")
        assert await asyncio.to_thread(blocking.entered.wait, 30)
        for number in range(4):  # two find a place
            observers.tell(workspace(), str(number))
        await observers.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    full, end = (record.getMessage() for record in caplog.records)
    assert full.startswith("plugin 'obs': kaito_reconciled has not returned for ")
    assert full.endswith("outcomes are dropped")
    assert end.endswith("2 outcomes were not told")
    blocking.leave.set()
