"""Blocks: who holds them, where sequences lie, and what is found again."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaito_runtime.engine.kv_cache import BlockPool


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 1), min_size=1, max_size=9)), max_size=20),
    st.integers(2, 6),
)
def test_what_is_found_was_published_under_the_same_salt_and_tokens(wanted: list[Any], blocks: int) -> None:
    pool = BlockPool(blocks, 2)
    content: dict[int, tuple[str, tuple[int, ...]]] = {}  # what each block was written with: salt, all tokens up to it
    for salt, tokens in wanted:
        found, before = pool.find(salt, tokens)
        assert len(found) * 2 < len(tokens)
        for i, block in enumerate(found):
            assert content[block] == (salt, tuple(tokens[: 2 * i + 2]))
        missing = -(-len(tokens) // 2) - len(found)
        if missing > pool.available:
            pool.release(found)
            continue
        own = pool.take(missing, found[-1] if found else None)
        assert len({*found, *own}) == len(found) + len(own)
        for i, block in enumerate(own, start=len(found)):
            content[block] = (salt, tuple(tokens[: 2 * i + 2]))
            if 2 * i + 2 <= len(tokens):
                before = pool.publish(block, before, tokens[2 * i : 2 * i + 2])
        pool.release(found + own)
        assert pool.available == blocks


def test_more_blocks_than_there_are_cannot_be_taken() -> None:
    pool = BlockPool(3, 4)
    assert pool.take(2) == [0, 1]
    with pytest.raises(ValueError, match="2 blocks are needed, 1 are free"):
        pool.take(2)
    assert pool.take(1, after=1) == [2]


def test_sequences_start_where_they_can_grow() -> None:
    pool = BlockPool(12, 4)
    one, two = pool.take(1, room=4), pool.take(2, room=4)
    assert (one, two) == ([0], [4, 5])
    assert pool.take(2, after=one[-1]) == [1, 2]
    assert pool.take(1, room=6) != [6], "there is no such room: any block will do"
    pool.release([4, 5])
    assert pool.take(3, room=5) == [4, 5, 6]


def test_spoilt_blocks_are_found_by_nobody() -> None:
    pool = BlockPool(4, 2)
    (block,) = pool.take(1)
    pool.publish(block, ("salt", None), [1, 2])
    pool.release([block], spoilt=[block])
    assert pool.find(None, [1, 2, 3])[0] == []
    assert pool.available == 4
