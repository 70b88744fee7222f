"""Models with LoRA layers against merged weights in fp64, and against the base model bit for bit."""

import copy

import pytest
import torch
from lora_models import TARGETS, falcon, gpt2, injected, llama, logits, merged, target_paths, weights
from torch import nn

from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.lora.records import AdapterWeights, LoraMatrix

MODELS = [llama, falcon, gpt2]
LAYOUTS = [False, True]  # the CPU path, and the kernels' page layout with their references


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("strengths", [(0.8, 0.5), (1, -1), (2, 0), (-10, 0.25)])
@pytest.mark.parametrize("ranks", [(8, 8), (1, 40), (16, 33)])
@pytest.mark.parametrize("paged", LAYOUTS)
def test_sum_of_two_adapters_equals_merged_weights(make, strengths, ranks, paged, ids):
    base = make()
    paths = target_paths(base, TARGETS[make])
    parts = [weights(base, paths, rank=r, seed=i + 1, scaling=(0.5, 1.7)[i]) for i, r in enumerate(ranks)]
    base, ours, lora, versions = injected(make, *parts, paged=paged)
    lora.routing.set([(ids.numel(), dict(zip(versions, strengths, strict=True)))])
    truth = logits(merged(base, list(zip(parts, strengths, strict=True))), ids)
    assert (logits(ours, ids) - truth).abs().max() < 1e-4 * truth.abs().max().clamp(min=1)
    assert (logits(base, ids) - truth).abs().max() > 1e-2, "the adapters must matter"


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("spans", ["cleared", "empty", "zero"])
@pytest.mark.parametrize("paged", LAYOUTS)
def test_no_live_adapter_is_bitwise_the_base_model(make, spans, paged, ids):
    base = make()
    base, ours, lora, (version,) = injected(make, weights(base, target_paths(base, TARGETS[make])), paged=paged)
    lora.routing.set([(ids.numel(), {version: 1.0})])
    assert not torch.equal(logits(ours, ids), logits(base, ids))
    if spans == "cleared":
        lora.routing.clear()
    else:
        lora.routing.set([(ids.numel(), {} if spans == "empty" else {version: 0.0})])
    assert torch.equal(logits(ours, ids), logits(base, ids))


@pytest.mark.parametrize(
    ("make", "in_order"),
    [*((make, True) for make in MODELS), (llama, False), (falcon, False)],  # GPT-2's own layers take no others
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("paged", LAYOUTS)
def test_base_tokens_in_a_mixed_batch_are_bitwise_base(make, dtype, paged, in_order):
    """Layer by layer: with attention in between, a token of the base model sees only its own request's keys."""
    base = make().to(dtype)
    paths = target_paths(base, TARGETS[make])
    ours = copy.deepcopy(base)
    lora = inject_lora(ours, paged=paged)
    one, two = (lora.bank.load(weights(base, paths, rank=r, seed=r)) for r in (8, 20))
    spans = [(3, {one: 1.0}), (2, {}), (1, {two: -0.5}), (4, {two: 0.0}), (2, {one: 0.3, two: 1.0}), (3, {})]
    lora.routing.set(spans)
    untouched = torch.tensor([i for i in range(15) if i in {3, 4, 6, 7, 8, 9, 12, 13, 14}])
    touched = torch.tensor([i for i in range(15) if i not in untouched])
    for path in paths:
        x = torch.randn(3, 5, lora.layers[path].in_features).to(dtype)
        x[0, 4] = 0.0
        if not in_order:
            x = x.transpose(0, 1).contiguous().transpose(0, 1)
        with torch.no_grad():
            got, want = (model.get_submodule(path)(x).flatten(0, 1) for model in (ours, base))
        assert torch.equal(got[untouched].view(torch.uint8), want[untouched].view(torch.uint8))
        assert (got[touched] != want[touched]).any(dim=1).all()


class Negated(torch.nn.Linear):
    """A layer whose product is -0.0 for zeros, which no plain product here is."""

    def forward(self, input):
        return -super().forward(input)


@pytest.mark.parametrize("paged", LAYOUTS)
def test_negative_zero_of_the_base_survives_in_a_mixed_batch(paged):
    model = torch.nn.Sequential(Negated(4, 4, bias=False))
    lora = inject_lora(model, paged=paged)
    version = lora.bank.load(weights(model, ["0"]))
    lora.routing.set([(1, {}), (1, {version: 1.0}), (1, {}), (1, {version: 1.0})])
    x = torch.zeros(4, 4)
    x[1] = 1.0
    with torch.no_grad():
        got = model(x)
    assert got[0].signbit().all() and got[2].signbit().all()
    assert got[1].ne(0).any()


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("paged", LAYOUTS)
@pytest.mark.parametrize("length", [5, 60])
def test_mixed_batch_gives_each_token_its_own_sum(make, paged, length):
    base = make()
    paths = target_paths(base, TARGETS[make])
    parts = [weights(base, paths, rank=r, seed=r) for r in (4, 16, 24)]
    base, ours, lora, versions = injected(make, *parts, paged=paged)
    mixes = [{}, {0: 1.0}, {1: -0.5, 2: 0.8}, {2: 10.0}, {0: 0.1, 1: 0.2, 2: 0.3}, {0: 0.0}]
    ids = torch.randint(0, 97, (len(mixes), length), generator=torch.Generator().manual_seed(4))
    lora.routing.set([(length, {versions[i]: s for i, s in mix.items()}) for mix in mixes])
    got = logits(ours, ids)
    for row, mix in enumerate(mixes):
        truth = logits(merged(base, [(parts[i], s) for i, s in mix.items()]), ids[row : row + 1])[0]
        assert (got[row] - truth).abs().max() < 1e-4 * truth.abs().max().clamp(min=1), mix


@pytest.mark.parametrize("paged", LAYOUTS)
def test_adapters_with_different_targets_and_scalings_share_a_step(paged, ids):
    base = llama()
    first = weights(base, target_paths(base, ("q_proj", "v_proj")), rank=4, seed=1, scaling=0.3)
    second = weights(base, target_paths(base, ("v_proj", "down_proj")), rank=32, seed=2, scaling=1.1)
    second.matrices["model.layers.1.mlp.down_proj"] = weights(  # as a rank and an alpha pattern would
        base, ["model.layers.1.mlp.down_proj"], rank=3, seed=5, scaling=7.0
    ).matrices["model.layers.1.mlp.down_proj"]
    base, ours, lora, (one, two) = injected(llama, first, second, paged=paged)
    lora.routing.set([(ids.numel(), {one: 0.8, two: -1.5})])
    truth = logits(merged(base, [(first, 0.8), (second, -1.5)]), ids)
    assert (logits(ours, ids) - truth).abs().max() < 1e-4


def test_packed_sequence_equals_batch(ids):
    """One row [1, T, K], as continuous batching packs it, through every layer."""
    base = llama()
    paths = target_paths(base, TARGETS[llama])
    base, ours, lora, (one, two) = injected(llama, weights(base, paths, seed=1), weights(base, paths, seed=2))
    lora.routing.set([(7, {one: 1.0}), (7, {two: 0.5})])
    for path in paths:
        layer = ours.get_submodule(path)
        x = torch.randn(2, 7, layer.in_features)
        with torch.no_grad():
            torch.testing.assert_close(layer(x).view(1, 14, -1), layer(x.view(1, 14, -1)))


def test_narrow_base_weights_keep_adapters_in_fp32():
    base = llama().bfloat16()
    path = "model.layers.0.mlp.up_proj"
    part = weights(base, [path], rank=8, scaling=1 / 3)
    lora = inject_lora(base)
    version = lora.bank.load(part)
    layer = lora.layers[path]
    x = torch.randn(5, layer.in_features, dtype=torch.bfloat16)
    with torch.no_grad():
        y = layer(x)
        lora.routing.set([(5, {version: 1.0})])
        matrix = part.matrices[path]
        delta = (x.double() @ matrix.a.double().t()) @ matrix.b.double().t() / 3
        torch.testing.assert_close(layer(x), (y.double() + delta).bfloat16(), rtol=0, atol=0)


def test_wrong_number_of_tokens_is_refused(ids):
    base = llama()
    _, ours, lora, (version,) = injected(llama, weights(base, target_paths(base, TARGETS[llama])))
    lora.routing.set([(3, {version: 1.0})])
    with pytest.raises(ValueError, match="set for 3 tokens, the embedding got 14"):
        logits(ours, ids)
    with pytest.raises(ValueError, match="set for 3 tokens, the layer got 2"):
        lora.layers["model.layers.0.mlp.up_proj"](torch.zeros(2, 48))


@pytest.mark.parametrize("tokens", [1, 2, 6, 30])
def test_packed_weights_give_the_same_up_to_rounding(tokens):
    sizes = {"hidden_size": 512, "intermediate_size": 640, "num_hidden_layers": 1}
    base, ours = llama(**sizes), llama(**sizes)
    lora = inject_lora(ours, pack=True)
    packed = [path for path, layer in lora.layers.items() if getattr(layer, "_packed", None) is not None]
    assert len(packed) == 5, "all but the small k_proj and v_proj"
    part = weights(base, target_paths(base, TARGETS[llama]), rank=8)
    version = lora.bank.load(part)
    ids = torch.randint(0, 97, (2, tokens), generator=torch.Generator().manual_seed(5))
    assert (logits(ours, ids) - logits(base, ids)).abs().max() < 1e-4
    lora.routing.set([(2 * tokens, {version: 0.7})])
    truth = logits(merged(base, [(part, 0.7)]), ids)
    assert (logits(ours, ids) - truth).abs().max() < 1e-4 * truth.abs().max()


class PackedQuantLinear(nn.Module):
    """A layer of packed weights as GPTQ and AWQ have them: no nn.Linear, and no `weight`."""

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.scale = dense.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("qweight", (dense.weight.detach() / self.scale).round().to(torch.int8))
        self.bias = dense.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.qweight.float() * self.scale, self.bias)


@torch.no_grad()
@pytest.mark.parametrize("paged", LAYOUTS)
def test_quantised_layers_keep_their_own_product_and_get_adapters_on_top(paged):
    torch.manual_seed(3)
    model = nn.Sequential(PackedQuantLinear(nn.Linear(24, 16)), nn.Linear(16, 8))
    x = torch.randn(1, 6, 24)
    base = model[0](x)
    lora = inject_lora(model, paged=paged)
    matrix = LoraMatrix(torch.randn(4, 24), torch.randn(16, 4), 0.5)
    version = lora.bank.load(AdapterWeights("a", "", {"0": matrix}))
    assert torch.equal(model[0](x), base)
    lora.routing.set([(4, {version: 2.0}), (2, {})])
    y = model[0](x)
    assert torch.equal(y[:, 4:], base[:, 4:]), "rows without an adapter have the layer's own bits"
    added = 2.0 * 0.5 * (x[0, :4].double() @ matrix.a.double().t()) @ matrix.b.double().t()
    assert (y[0, :4] - base[0, :4] - added).abs().max() < 1e-5
