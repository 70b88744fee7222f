"""Pages, reference counts, and that loading and unloading touch nobody else."""

import pytest
import torch
from lora_models import TARGETS, llama, logits, merged, target_paths, weights

from kaito_runtime.errors import AdapterLoadError
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.lora.pages import DensePool, PageAllocator, pages_for, ranks_of


@pytest.fixture
def model():
    return llama()


@pytest.fixture
def paths(model):
    return target_paths(model, TARGETS[llama])


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


def test_a_version_lives_until_the_last_request_ends(model, paths):
    bank = inject_lora(model, max_pages=2).bank
    version = bank.load(weights(model, paths, rank=32))
    bank.acquire(version)
    bank.acquire(version)
    bank.retire(version)
    assert [(r.name, r.references, r.retired) for r in bank.resident()] == [("adapter-1", 2, True)]
    bank.release(version)
    assert bank.free_pages == 0
    bank.release(version)
    assert bank.resident() == [] and bank.free_pages == 2
    with pytest.raises(KeyError, match="not resident"):
        bank.acquire(version)


def test_retiring_an_unused_version_frees_it_at_once(model, paths):
    bank = inject_lora(model, max_pages=1).bank
    version = bank.load(weights(model, paths))
    assert bank.resident()[0].nbytes == sum(sum(layer.lora_shape) for layer in bank._layers.values()) * 16 * 4
    bank.retire(version)
    assert bank.free_pages == 1
    bank.load(weights(model, paths))


def test_too_many_releases_are_refused(model, paths):
    bank = inject_lora(model).bank
    version = bank.load(weights(model, paths))
    with pytest.raises(ValueError, match=r"adapter-1.*more often"):
        bank.release(version)


def test_a_routed_step_refuses_a_version_that_is_gone(model, paths):
    lora = inject_lora(model)
    version = lora.bank.load(weights(model, paths))
    lora.bank.retire(version)
    with pytest.raises(KeyError, match="not resident; resident: none"):
        lora.routing.set([(1, {version: 1.0})])


def test_over_budget_is_refused_and_changes_nothing(model, paths):
    lora = inject_lora(model, max_pages=2)
    lora.bank.load(weights(model, paths, rank=16))
    with pytest.raises(AdapterLoadError, match="rank 17 needs 2 pages of 16 ranks, 1 of 2 are free") as now:
        lora.bank.load(weights(model, paths, rank=17, seed=2))
    with pytest.raises(AdapterLoadError, match="rank 33 needs 3 pages of 16 ranks, 1 of 2 are free") as ever:
        lora.bank.load(weights(model, paths, rank=33, seed=2))
    assert now.value.transient and not ever.value.transient
    assert len(lora.bank.resident()) == 1 and lora.bank.free_pages == 1


def test_unknown_layer_and_wrong_shape_are_refused(model, paths):
    bank = inject_lora(model, exclude=("lm_head", "q_proj")).bank
    with pytest.raises(AdapterLoadError, match=r"q_proj' is not among the 12 adapted layers"):
        bank.load(weights(llama(), ["model.layers.0.self_attn.q_proj"]))
    other = llama(hidden_size=64)
    with pytest.raises(AdapterLoadError, match=r"is a \[80, 48\] layer, the adapter is for \[80, 64\]"):
        bank.load(weights(other, ["model.layers.0.mlp.up_proj"]))
    assert bank.free_pages == 256


@pytest.mark.parametrize("paged", [False, True])
def test_loading_and_unloading_leave_others_untouched(model, paths, ids, paged):
    base = llama()
    lora = inject_lora(model, paged=paged)
    first = weights(base, paths, rank=20, seed=1)
    kept = lora.bank.load(first)
    tokens = ids.numel()
    lora.routing.set([(tokens, {kept: 0.7})])
    before = logits(model, ids)
    gone = lora.bank.load(weights(base, paths, rank=64, seed=2))
    assert torch.equal(logits(model, ids), before)
    lora.bank.retire(gone)
    # Into the freed pages: a smaller adapter, on fewer layers. Nothing of the old one may show through.
    small = weights(base, target_paths(base, ("q_proj",)), rank=3, seed=3)
    new = lora.bank.load(small)
    assert torch.equal(logits(model, ids), before)
    lora.routing.set([(tokens, {kept: 0.7, new: 1.0})])
    truth = logits(merged(base, [(first, 0.7), (small, 1.0)]), ids)
    assert (logits(model, ids) - truth).abs().max() < 1e-4


@pytest.mark.parametrize("paged", [False, True])
def test_scattered_pages_and_evicted_gathers_stay_exact(model, paths, ids, paged):
    base = llama()
    lora = inject_lora(model, paged=paged)
    parts = [weights(base, paths, rank=r, seed=i) for i, r in enumerate((4, 17, 16, 40, 8), 1)]
    versions = [lora.bank.load(p) for p in parts]
    lora.bank.retire(versions[1])
    lora.bank.retire(versions[3])
    scattered = weights(base, paths, rank=90, seed=9)  # 6 pages: 2 + 3 freed, 1 new
    version = lora.bank.load(scattered)
    assert lora.bank.pages(version) != tuple(range(6))
    for _ in range(2):
        for strength in (0.5, -2.0):
            lora.routing.set([(ids.numel(), {version: strength, versions[4]: 1.0})])
            truth = logits(merged(base, [(scattered, strength), (parts[4], 1.0)]), ids)
            assert (logits(model, ids) - truth).abs().max() < 1e-4 * truth.abs().max()


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


def test_ranks_that_no_adapter_has_are_not_multiplied(model, paths):
    base = llama()
    lora = inject_lora(model)
    versions = [lora.bank.load(weights(base, paths, rank=rank, seed=rank)) for rank in (4, 17, 16)]
    lora.routing.set([(1, dict.fromkeys(versions, 0.5)), (1, {versions[1]: 2.0})])
    layer = next(iter(lora.layers.values()))
    (work,) = lora.routing.step.work(layer.scalings)
    a_t, b_t = layer.pool.live(work.ranks)
    assert (a_t.shape[1], b_t.shape[0], work.s.shape[1]) == (37, 37, 37)
    assert a_t.abs().sum(0).ne(0).all() and b_t.abs().sum(1).ne(0).all()


def test_layers_with_the_same_scalings_share_a_table(model, paths, ids):
    lora = inject_lora(model)
    everywhere = lora.bank.load(weights(model, paths, seed=1))
    assert len({layer.scalings for layer in lora.layers.values()}) == 1
    partly = lora.bank.load(weights(llama(), target_paths(llama(), ("q_proj", "v_proj")), seed=2))
    assert len({layer.scalings for layer in lora.layers.values()}) == 2
    lora.routing.set([(ids.numel(), {everywhere: 1.0, partly: 1.0})])
    logits(model, ids)
    assert len(lora.routing.step._work) == 2
    lora.bank.retire(partly)
    assert len({layer.scalings for layer in lora.layers.values()}) == 1
