"""A whole LoRA layer over the interpreted kernels: bank, routing, tables and launches together."""

import pytest
import torch
from kernel_cases import error
from torch import nn

from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.lora.records import AdapterWeights, LoraMatrix


class Opaque(nn.Linear):
    """A product that only the layer itself can compute, as quantised layers have."""

    def forward(self, input):
        return super().forward(input)


@pytest.mark.parametrize("layer", [nn.Linear, Opaque])
@pytest.mark.parametrize("tokens", [1, 6, 30])
def test_a_layer_with_mixed_requests(layer, tokens):
    torch.manual_seed(tokens)
    model = nn.Sequential(layer(80, 48))
    weight, bias = model[0].weight.detach().double(), model[0].bias.detach().double()
    lora = inject_lora(model, paged=True, max_pages=8)
    matrices = [LoraMatrix(torch.randn(r, 80) / 9, torch.randn(48, r) / r**0.5, 0.5) for r in (8, 40, 17)]
    versions = [lora.bank.load(AdapterWeights(str(i), "", {"0": matrix})) for i, matrix in enumerate(matrices)]
    lora.bank.retire(versions[0])  # its page goes to the next: pages are scattered from here on
    matrices[0] = LoraMatrix(torch.randn(33, 80) / 9, torch.randn(48, 33) / 6, 2.0)
    versions[0] = lora.bank.load(AdapterWeights("again", "", {"0": matrices[0]}))
    mixes = [(tokens // 2, {0: 0.5, 1: -1.0}), (tokens // 3, {}), (tokens - tokens // 2 - tokens // 3, {2: 3.0})]
    lora.routing.set([(count, {versions[i]: s for i, s in mix.items()}) for count, mix in mixes])
    x = torch.randn(1, tokens, 80)
    with torch.no_grad():
        y = model(x)[0]
    truth, first = x[0].double() @ weight.t() + bias, 0
    for count, mix in mixes:
        rows = x[0, first : first + count].double()
        for i, strength in mix.items():
            m = matrices[i]
            truth[first : first + count] += strength * m.scaling * (rows @ m.a.double().t()) @ m.b.double().t()
        first += count
    assert error(y, truth) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layer", [nn.Linear, Opaque])
@pytest.mark.parametrize("tokens", [6, 30])
def test_base_rows_of_a_mixed_batch_have_the_bits_of_a_batch_without_adapters(dtype, layer, tokens):
    torch.manual_seed(tokens)
    model = nn.Sequential(layer(80, 48, dtype=dtype))
    x = torch.randn(1, tokens, 80).to(dtype)
    with torch.no_grad():
        base = model(x)[0]
    lora = inject_lora(model, paged=True, max_pages=8)
    matrices = [LoraMatrix(torch.randn(r, 80) / 9, torch.randn(48, r) / r**0.5, 1.0) for r in (8, 40)]
    one, two = (lora.bank.load(AdapterWeights(str(i), "", {"0": matrix})) for i, matrix in enumerate(matrices))
    spans = [
        (tokens // 3, {one: 1.0}),
        (tokens // 3, {}),
        (tokens // 6, {one: 0.0}),
        (tokens // 6, {one: 0.5, two: 2.0}),
    ]
    lora.routing.set(spans)
    with torch.no_grad():
        mixed = model(x)[0]
    untouched = slice(tokens // 3, tokens - tokens // 6)
    assert torch.equal(mixed[untouched].view(torch.uint8), base[untouched].view(torch.uint8))
    changed = (mixed != base).any(dim=1)
    assert changed[: tokens // 3].all() and changed[-(tokens // 6) :].all()
