"""How long new Workspaces take to get ready."""

from typing import Any

from kaito_core.controller.work.ready_timer import ReadyTimer

KEY = ("default", "w")


def _document(uid: str = "1", **status: Any) -> dict[str, Any]:
    return {"metadata": {"uid": uid}, **({"status": status} if status else {})}


def _true(*types: str) -> list[dict[str, Any]]:
    known = ("ResourceReady", "InferenceReady", "WorkspaceSucceeded")
    return [{"type": kind, "status": "True" if kind in types else "Unknown"} for kind in known]


class Watch:
    def __init__(self) -> None:
        self.now = 100.0
        self.seen: list[tuple[str, float]] = []
        self.timer = ReadyTimer(lambda stage, seconds: self.seen.append((stage, seconds)), lambda: self.now)


def test_each_stage_is_measured_once_from_the_first_pass_on() -> None:
    watch = Watch()
    watch.timer.begin(KEY, _document())
    watch.now += 5
    watch.timer.begin(KEY, _document())  # a second pass, before a status was written
    watch.timer.reach(KEY, _true("ResourceReady"))
    watch.now += 5
    watch.timer.reach(KEY, _true("ResourceReady"))
    watch.timer.reach(KEY, _true("ResourceReady", "InferenceReady", "WorkspaceSucceeded"))
    watch.now += 5
    watch.timer.reach(KEY, _true())
    watch.timer.reach(KEY, _true("ResourceReady", "InferenceReady", "WorkspaceSucceeded"))
    assert watch.seen == [("nodes", 5), ("server", 10), ("ready", 10)]


def test_what_somebody_else_has_looked_at_is_not_measured() -> None:
    watch = Watch()
    watch.timer.begin(KEY, _document(state="Pending"))
    watch.timer.reach(KEY, _true("ResourceReady"))
    assert watch.seen == []


def test_one_that_is_made_again_is_measured_again() -> None:
    watch = Watch()
    watch.timer.begin(KEY, _document("1"))
    watch.now += 5
    watch.timer.begin(KEY, _document("2"))
    watch.now += 1
    watch.timer.reach(KEY, _true("ResourceReady"))
    watch.timer.forget(KEY)
    watch.timer.reach(KEY, _true("InferenceReady"))
    assert watch.seen == [("nodes", 1)]
