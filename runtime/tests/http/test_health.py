"""Readiness: what keeps requests away, and what does not."""

from types import SimpleNamespace
from typing import Any

from kaito_runtime.http.health import Health


def health(**changes: Any) -> tuple[Health, Any]:
    stats = SimpleNamespace(failures_in_a_row=0)
    world = SimpleNamespace(alive=True, lost="", settled=False, stats=lambda: stats, failures=stats)
    return Health(engine=world, adapters=world, warm=True, **changes), world  # type: ignore[arg-type]


def test_the_first_adapters_are_waited_for_and_later_ones_are_not() -> None:
    probe, world = health()
    assert probe.why_not_ready() == "adapters are being loaded"
    world.settled = True
    assert probe.why_not_ready() == ""
    world.settled = False  # the Workspace got another adapter
    assert probe.why_not_ready() == ""


def test_repeated_failures_and_the_end_take_it_out_of_service() -> None:
    probe, world = health(complete=True)
    world.failures.failures_in_a_row = 1
    assert probe.why_not_ready() == ""
    world.failures.failures_in_a_row = 2
    assert "the last 2 forward passes failed" in probe.why_not_ready()
    probe.draining = True
    assert probe.why_not_ready() == "the server is stopping"
    world.alive = False
    assert probe.why_dead() == "the engine has stopped"


def test_process_is_restarted_where_nothing_else_helps() -> None:
    probe, world = health(complete=True)
    assert probe.why_dead() == ""
    probe.failed_self_tests = ["no"] * 4
    assert probe.why_dead() == ""
    probe.failed_self_tests.append("the model failed")
    assert probe.why_dead() == "the last 5 self-tests of the model failed: the model failed"
    probe.failed_self_tests.clear()
    world.lost = "cuda:0 no longer works: AcceleratorError: CUDA error: an illegal memory access"
    assert probe.why_dead() == probe.why_not_ready() == world.lost
    world.lost = ""
    probe.failure = "the background task has ended"
    assert probe.why_dead() == "the background task has ended"
