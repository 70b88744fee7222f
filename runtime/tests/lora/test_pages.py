"""Rank pages: allocation, and what a pool holds after pages change owners."""

import pytest
import torch

from kaito_runtime.lora.pages import DensePool, PageAllocator, pages_for, ranks_of


@pytest.mark.parametrize(("rank", "pages"), [(1, 1), (8, 1), (16, 1), (17, 2), (48, 3), (256, 16)])
def test_ranks_take_whole_pages(rank, pages):
    assert pages_for(rank) == pages


def test_pages_are_side_by_side_where_possible_and_scattered_where_not():
    allocator = PageAllocator(6)
    first, second, third = allocator.take(2), allocator.take(1), allocator.take(2)
    assert (first, second, third) == ((0, 1), (2,), (3, 4))
    allocator.give_back(second)
    allocator.give_back(first[:1])
    assert allocator.take(3) == (0, 2, 5)
    assert allocator.take(1) is None


def test_a_reused_page_is_not_served_from_an_old_gather():
    pool = DensePool(4, 3, torch.device("cpu"))
    pool.write((0, 2), torch.ones(20, 4), torch.ones(3, 20))
    whole_pages = ranks_of((0, 2), 32)
    a_t, b_t = pool.live(whole_pages)
    pool.write((2,), torch.full((2, 4), 5.0), torch.full((3, 2), 6.0))
    assert a_t.shape == (4, 32) and a_t[:, 16:20].eq(1).all(), "who holds the old tensors keeps them"
    a_t, b_t = pool.live(whole_pages)
    assert a_t[:, 16:18].eq(5).all() and a_t[:, 18:].eq(0).all()
    assert b_t[16:18].eq(6).all() and b_t[18:].eq(0).all() and b_t[:16].eq(1).all()


def test_the_cache_of_gathers_is_bounded():
    pool = DensePool(4, 3, torch.device("cpu"))
    pool.write(range(20), torch.ones(320, 4), torch.ones(3, 320))
    for last in range(2, 20):
        pool.live(ranks_of((0, last), 32))
    assert len(pool._live) == DensePool.CACHED
