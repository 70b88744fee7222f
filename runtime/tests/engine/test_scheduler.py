"""Which rows a pass has: fairness, blocks, preemption, cancellation, and what holds for any traffic."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito_runtime.engine.scheduler import Row, Scheduler

END = 9


def scheduler(**sizes: Any) -> Scheduler:
    return Scheduler(**{"blocks": 16, "block_tokens": 4, "step_tokens": 16, "requests": 4, **sizes})


def next_pass(planner: Scheduler, token: int = 1) -> tuple[tuple[Row, ...], set[str]]:
    rows = planner.plan()
    return rows, planner.commit([token] * sum(row.samples for row in rows))


def shares(rows: Iterable[Row]) -> dict[str, int]:
    return {row.request_id: row.tokens for row in rows}


def test_answers_go_on_in_every_pass_beside_a_long_prompt() -> None:
    planner = scheduler()
    planner.add("answer", [1], 50, ())
    next_pass(planner)
    planner.add("long", [1] * 40, 1, ())
    for expected in ({"answer": 1, "long": 15}, {"answer": 1, "long": 15}, {"answer": 1, "long": 10}, {"answer": 1}):
        assert shares(next_pass(planner)[0]) == expected


def test_oldest_prompt_has_half_a_pass_and_the_shortest_get_the_rest() -> None:
    planner = scheduler()
    for name, length in (("oldest", 20), ("long", 20), ("short", 3)):
        planner.add(name, [1] * length, 1, ())
    rows, complete = next_pass(planner)
    assert shares(rows) == {"oldest": 8, "long": 5, "short": 3}
    assert complete == {"short"}


def test_prompts_that_need_less_leave_their_share_to_others() -> None:
    planner = scheduler()
    planner.add("oldest", [1] * 30, 1, ())
    planner.add("short", [1] * 2, 1, ())
    assert shares(next_pass(planner)[0]) == {"oldest": 14, "short": 2}


def test_waiting_requests_start_in_order_when_blocks_are_free_for_all_of_their_tokens() -> None:
    planner = scheduler(blocks=8)
    planner.add("a", [1] * 12, 4, ())
    planner.add("large", [1] * 20, 1, ())
    planner.add("small", [1], 1, ())
    assert shares(next_pass(planner)[0]) == {"a": 12}, "5 blocks and one to grow: 'a' holds 3 of 8"
    assert (planner.running, planner.waiting) == (1, 2), "'small' must not overtake for ever"
    while planner.running == 1 and planner.waiting == 2:
        next_pass(planner)
    assert "large" in shares(planner.plan())


def test_youngest_gives_way_and_computes_its_tokens_again() -> None:
    planner = scheduler(blocks=4)
    planner.add("old", [1] * 4, 8, ())
    planner.add("young", [2] * 3, 8, ())
    seen: list[dict[str, int]] = []
    rows: tuple[Row, ...]
    while (rows := next_pass(planner)[0]) and "young" in shares(rows):
        seen.append(shares(rows))
    assert shares(rows) == {"old": 1}
    assert planner.waiting == 1
    while "young" not in shares(rows := next_pass(planner)[0]):
        assert rows
    (again,) = (row for row in rows if row.request_id == "young")
    assert (again.before, again.tokens) == (0, 3 + len(seen)), "its own tokens and those that it had been given"


def test_last_token_ends_a_request_and_frees_its_blocks() -> None:
    planner = scheduler()
    planner.add("a", [1, 2], 10, {END})
    next_pass(planner, token=5)
    assert next_pass(planner, token=END)[1] == {"a"}
    assert (planner.pool.held, planner.running, planner.plan()) == (0, 0, ())


def test_prompt_alone_ends_without_a_token() -> None:
    planner = scheduler()
    planner.add("a", [1] * 20, 0, ())
    rows, complete = zip(*(next_pass(planner) for _ in range(2)), strict=True)
    assert [[(row.tokens, row.samples) for row in one] for one in rows] == [[(16, False)], [(4, False)]]
    assert complete == (set(), {"a"})


def test_a_pass_that_was_not_computed_is_planned_again() -> None:
    planner = scheduler()
    planner.add("a", [1] * 20, 2, ())
    assert planner.plan() == planner.plan()


def test_keys_are_computed_again_where_another_rotary_table_begins() -> None:
    planner = scheduler(rope_of=lambda tokens: int(tokens > 6), reuse_prefixes=True)
    planner.add("a", [1] * 5, 4, ())
    rows = [next_pass(planner)[0] for _ in range(4)]
    assert [[(row.before, row.tokens) for row in one] for one in rows] == [[(0, 5)], [(5, 1)], [(0, 7)], [(7, 1)]]
    planner.add("short", [1] * 6, 1, ())
    assert [row.before for row in next_pass(planner)[0]] == [4], "blocks of the first table are not lost"
    planner.add("long", [1] * 7, 1, ())
    assert [row.before for row in next_pass(planner)[0]] == [4], "nor those of the second, which are others"
    assert planner.pool.held == 0


@pytest.mark.parametrize(
    ("prompt", "most", "why"),
    [
        ([], 1, "the prompt has no tokens"),
        ([1] * 65, 1, "the prompt has 65 tokens, the key-value cache holds 64"),
        ([1] * 64, 1, "the prompt has 64 tokens, the key-value cache holds 64"),
    ],
)
def test_what_can_never_be_computed_is_refused(prompt: list[int], most: int, why: str) -> None:
    planner = scheduler()
    with pytest.raises(ValueError, match=why):
        planner.add("a", prompt, most, ())
    planner.add("a", [1], 1, ())
    with pytest.raises(ValueError, match="request a is queued already"):
        planner.add("a", [1], 1, ())


# ------------------------------------------------------------------------------------------------- any traffic at all

SIZES = st.fixed_dictionaries(
    {
        "blocks": st.integers(2, 12),
        "block_tokens": st.integers(1, 4),
        "step_tokens": st.integers(1, 12),
        "requests": st.integers(1, 5),
        "reuse_prefixes": st.booleans(),
        "rope_of": st.sampled_from(
            [lambda tokens: 0, lambda tokens: int(tokens > 5), lambda tokens: tokens * (tokens > 7)]
        ),
    }
)
REQUESTS = st.lists(
    st.tuples(
        st.integers(1, 30),  # tokens of the prompt
        st.integers(0, 12),  # most tokens of the answer
        st.sampled_from([None, "one", "two"]),
        st.booleans(),  # scores its prompt
        st.integers(0, 8),  # comes before this pass
        st.integers(0, 60),  # its client leaves before this pass
    ),
    max_size=8,
)


def check_blocks(planner: Scheduler) -> None:
    """Each block is held as often as it is named, and none that is written has two owners."""
    pool = planner.pool
    holders = Counter(block for request in planner._running for block in request.blocks)
    assert [pool.references(block) for block in range(pool.blocks)] == [holders[b] for b in range(pool.blocks)]
    assert sorted([*pool._free, *pool._kept, *holders]) == list(range(pool.blocks)), "a block is lost"
    for request, row in planner.planned():
        size = pool.block_tokens
        written = request.blocks[row.before // size : -(-(row.before + row.tokens) // size)]
        assert all(holders[block] == 1 for block in written)
        assert len(written) >= 1
        assert not any(pool.is_published(block) for block in written)


@settings(max_examples=150, deadline=None)
@given(sizes=SIZES, wanted=REQUESTS, ends=st.integers(2, 20))
def test_every_request_ends_and_no_block_is_lost(sizes: dict[str, Any], wanted: list[Any], ends: int) -> None:
    planner = Scheduler(**sizes)
    longest, chosen = planner.longest, Counter[str]()
    scored: dict[str, set[int]] = {}
    done: set[str] = set()
    left: set[str] = set()
    added = 0
    order: list[str] = []
    for number in range(3000):
        for index, (prompt, most, salt, scores, comes, _) in enumerate(wanted):
            if comes == number and prompt + (most > 0) <= longest:
                planner.add(str(index), [i % 3 for i in range(prompt)], most, {END}, salt, scores_prompt=scores)
                order.append(str(index))
                added += 1
        gone = [name for name in order if wanted[int(name)][5] == number and name not in done]
        planner.drop(gone)
        left.update(gone)
        rows = planner.plan()
        check_blocks(planner)
        assert sum(row.tokens for row in rows) <= sizes["step_tokens"]
        assert len({row.request_id for row in rows}) == len(rows) <= sizes["requests"]
        assert all(row.tokens >= 1 for row in rows)
        if planner.running or planner.waiting:
            assert rows, "there is work, and no pass"
            oldest = next(name for name in order if name not in done and name not in left)
            assert oldest in shares(rows), "the oldest gets on in every pass"
        for request, row in planner.planned():
            first = max(row.before + 1, request.scored)
            scored.setdefault(request.id, set()).update(range(first, first + row.scores))
        chosen.update(row.request_id for row in rows if row.samples)
        complete = planner.commit([END if chosen[row.request_id] > ends else 1 for row in rows if row.samples])
        done.update(complete)
        if number > 60 and not (planner.running or planner.waiting):
            break
    assert planner.pool.held == planner.running == planner.waiting == 0
    assert len(done) == added - len(left)
    for name in done:
        prompt, most, _, scores, _, _ = wanted[int(name)]
        assert chosen[name] == min(most, longest - prompt, ends + 1)
        assert scored.get(name, set()) == (set(range(1, prompt)) if scores else set())
