"""Reference counts, and that loading and unloading leave all other adapters as they are."""

import pytest
import torch
from lora_models import llama, logits, merged, target_paths, weights

from kaito_runtime.errors import AdapterLoadError
from kaito_runtime.lora.inject import inject_lora


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
    assert bank.resident()[0].nbytes == sum(sum(bank._layers[path].lora_shape) for path in paths) * 16 * 4
    bank.retire(version)
    assert bank.free_pages == 1
    bank.load(weights(model, paths))


def test_too_many_releases_are_refused(model, paths):
    bank = inject_lora(model).bank
    version = bank.load(weights(model, paths))
    with pytest.raises(ValueError, match=r"adapter-1.*more often"):
        bank.release(version)


def test_an_adapter_that_the_pools_could_never_hold_is_refused_and_changes_nothing(model, paths):
    lora = inject_lora(model, max_pages=2)
    with pytest.raises(AdapterLoadError, match="rank 33 needs 3 pages of 16 ranks, there are 2: set --adapter-memory"):
        lora.bank.load(weights(model, paths, rank=33, seed=2))
    assert lora.bank.resident() == [] and lora.bank.free_pages == 2
    lora.reserve(4, max_rank=16)
    with pytest.raises(AdapterLoadError, match=r"rank 17 is above the largest.*16 \(--max-adapter-rank\)"):
        lora.bank.load(weights(model, paths, rank=17, seed=2))
    lora.bank.load(weights(model, paths, rank=16))
    with pytest.raises(ValueError, match="loaded already"):
        lora.reserve(8)


@pytest.mark.parametrize("paged", [False, True])
def test_more_adapters_than_pages_wait_in_main_memory_and_come_back_the_same(model, paths, ids, paged):
    base = llama()
    lora = inject_lora(model, paged=paged, max_pages=3)
    bank = lora.bank
    parts = [weights(base, paths, rank=r, seed=i) for i, r in enumerate((16, 20, 9, 33), 1)]
    versions = [bank.load(part) for part in parts]
    assert [bool(r.nbytes) for r in bank.resident()] == [True, True, False, False]
    first = [None] * 4
    for order in ((0, 1, 2, 3), (3, 0, 2, 1)):
        for i in order:
            assert bank.pin([versions[i]])
            lora.routing.set([(ids.numel(), {versions[i]: 0.7})])
            found = logits(model, ids)
            assert (found - logits(merged(base, [(parts[i], 0.7)]), ids)).abs().max() < 1e-4
            assert first[i] is None or torch.equal(found, first[i]), "the same bits after a move"
            first[i] = found
            bank.unpin([versions[i]])
    for version in versions:
        bank.retire(version)
    assert bank.resident() == [] and bank.free_pages == 3


def test_the_least_recently_used_moves_out_and_never_one_that_is_pinned(model, paths):
    bank = inject_lora(model, max_pages=2).bank
    one, two, three, large = (bank.load(weights(model, paths, rank=r, seed=r)) for r in (1, 2, 3, 32))

    def inside():
        return [bool(bank.pages(version)) for version in (one, two, three, large)]

    assert bank.pin([one]) and inside() == [True, True, False, False]
    bank.unpin([one])
    assert bank.pin([three]) and inside() == [True, False, True, False], "two was used before one"
    assert bank.pin([one, three]), "what is inside needs no room"
    assert not bank.pin([two]) and not bank.pin([large])
    bank.unpin([one, three])
    bank.unpin([three])
    assert bank.pin([large]) and inside() == [False, False, False, True]
    bank.acquire(one)
    bank.retire(one)
    assert not bank.pin([one])
    bank.unpin([large])
    assert bank.pin([one]), "a retired one that a request holds comes back, too"
    bank.unpin([one])
    bank.release(one)
    assert len(bank.resident()) == 3


def test_unknown_layer_and_wrong_shape_are_refused(model, paths):
    bank = inject_lora(model, exclude=("lm_head", "embed_tokens", "q_proj")).bank
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


def test_layers_with_the_same_scalings_share_a_table(model, paths, ids):
    lora = inject_lora(model, exclude=("lm_head", "embed_tokens"))
    everywhere = lora.bank.load(weights(model, paths, seed=1))
    assert len({layer.scalings for layer in lora.layers.values()}) == 1
    partly = lora.bank.load(weights(llama(), target_paths(llama(), ("q_proj", "v_proj")), seed=2))
    assert len({layer.scalings for layer in lora.layers.values()}) == 2
    lora.routing.set([(ids.numel(), {everywhere: 1.0, partly: 1.0})])
    logits(model, ids)
    assert len(lora.routing.step._work) == 2
    lora.bank.retire(partly)
    assert len({layer.scalings for layer in lora.layers.values()}) == 1
