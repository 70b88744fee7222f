"""A rank that failed reaches the others, although they wait for it in a collective."""

import pytest
import torch.distributed as dist

from kaito_runtime.ranks import alarm
from kaito_runtime.ranks.alarm import Alarm


class Two:
    """Two ranks with one store, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lost: dict[int, str] = {}
        store = dist.HashStore()
        self.leader, self.other = (
            Alarm(store, rank, 2, lambda why, rank=rank: self.lost.setdefault(rank, why), lambda: self.now)
            for rank in range(2)
        )

    def look(self, after: float) -> tuple[bool, bool]:
        self.now += after
        return self.leader.look(), self.other.look()


def test_a_failure_that_nobody_settles_is_known_to_all_ranks_in_seconds() -> None:
    two = Two()
    assert two.look(1) == (False, False)
    two.other.ring(ValueError("no such page"))
    assert two.look(1) == (False, False)
    assert two.look(alarm.PATIENCE_SECONDS) == (True, True)
    assert set(two.lost.values()) == {"a pass failed on rank 1 alone: ValueError: no such page"}


def test_a_failure_of_all_ranks_that_is_settled_is_forgotten() -> None:
    two = Two()
    for _ in range(5):  # each time another failure, as slow as may be
        two.leader.ring(ValueError("bad request"))
        two.other.ring(ValueError("bad request"))
        assert two.look(0.5) == (False, False)
        assert two.look(alarm.PATIENCE_SECONDS - 1) == (False, False)
        two.leader.settle()
        two.other.settle()
    assert two.look(alarm.PATIENCE_SECONDS) == two.look(alarm.PATIENCE_SECONDS) == (False, False)
    for _ in range(3):  # not seen as settled in between: the same words, and yet another failure
        two.leader.ring(ValueError("bad request"))
        assert two.look(alarm.PATIENCE_SECONDS - 1) == (False, False)
    assert not two.lost


def test_a_lost_store_is_a_reason_to_end_unless_the_ranks_end_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def check(self, *keys: object) -> bool:
            raise RuntimeError("Broken pipe")

        set = check

    monkeypatch.setattr(alarm, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(alarm, "PATIENCE_SECONDS", 0.0)
    why: list[str] = []
    Alarm(Gone(), 1, 2, why.append)._watch()  # type: ignore[arg-type]
    assert why == ["the store where the ranks met is gone: RuntimeError: Broken pipe"]
    ended = Alarm(Gone(), 1, 2, why.append)  # type: ignore[arg-type]
    ended.stop()
    ended._watch()
    ended.ring(ValueError("told to nobody"))
    assert len(why) == 1
