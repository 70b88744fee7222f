"""Rank 0 and another one in one process group: what they agree on, and how they end when they cannot."""

from pathlib import Path
from typing import Any

import pytest
from two_ranks import run_two


@pytest.mark.slow
def test_messages_of_every_size_arrive(two_ranks: dict[str, Any]) -> None:
    assert two_ranks["leader"]["messages"]


@pytest.mark.slow
def test_an_adapter_that_one_rank_cannot_load_is_loaded_nowhere(two_ranks: dict[str, Any]) -> None:
    found = two_ranks["leader"]["engine"]
    assert "rank 1 on" in found["other"]
    assert "its digest is sha256:" in found["other"]
    assert "is not a folder" in found["missing"]
    assert found["resident"] == ["same"]


@pytest.mark.slow
def test_a_pass_that_fails_ends_its_requests_alone(two_ranks: dict[str, Any]) -> None:
    found = two_ranks["leader"]["engine"]
    assert "sampling failed" in found["failed"]
    assert found["tokens after"] == found["tokens"]
    assert found["alive"]


@pytest.mark.slow
def test_a_request_for_which_nothing_can_be_chosen_fails_alone(two_ranks: dict[str, Any]) -> None:
    found = two_ranks["leader"]["engine"]
    assert found["broken"] == "no token could be chosen: ValueError: a bug"
    assert found["beside"] == found["tokens"]


@pytest.mark.slow
def test_a_rank_that_drifts_ends_loudly(two_ranks: dict[str, Any]) -> None:
    assert "would compute" in two_ranks["follower"]
    assert "the leader computes (Row(request_id=" in two_ranks["follower"]
    found = two_ranks["leader"]["engine"]
    assert found["lost"]
    assert not found["alive after"]


@pytest.mark.slow
def test_a_rank_that_hangs_in_a_pass_is_given_up(tmp_path: Path) -> None:
    found = run_two(tmp_path, "leader", "hang")
    assert found["alive"]
    assert "a rank hangs" in found["lost"]
    assert not found["alive after"]
