"""Which products may be used with the weight of a layer."""

import pytest
import torch
from lora_models import weights

from kaito_runtime.kernels.dispatch import Base
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.lora.targets import base_of


class Narrow(torch.nn.Linear):
    """What a quantised layer looks like: a narrow weight and one factor per row."""

    def __init__(self, dtype):
        super().__init__(8, 4, bias=False)
        self.weight = torch.nn.Parameter(torch.ones(4, 8).to(dtype), requires_grad=False)
        self.weight_scale = torch.full((4,), 0.5)

    def forward(self, input):
        return input @ (self.weight.float() * self.weight_scale[:, None]).t()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_row_scaled_weights_are_multiplied_by_the_kernel(dtype):
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), Narrow(dtype))
    assert [base_of(layer) for layer in model] == [Base.DENSE, Base.ROW_SCALED]
    lora = inject_lora(model, paged=True)
    part = weights(model, ["1"], rank=4)
    version = lora.bank.load(part)
    lora.routing.set([(3, {version: 2.0})])
    x, matrix = torch.randn(3, 8), part.matrices["1"]
    with torch.no_grad():
        want = x.sum(1, keepdim=True) * 0.5 + 2.0 * matrix.scaling * (x @ matrix.a.t()) @ matrix.b.t()
        torch.testing.assert_close(model[1](x), want)


def test_what_only_the_layer_can_multiply_is_opaque():
    wrong_scale = Narrow(torch.int8)
    wrong_scale.weight_scale = torch.ones(2, 2)
    assert base_of(wrong_scale) is Base.OPAQUE
    assert base_of(type("Other", (torch.nn.Linear,), {})(8, 4)) is Base.OPAQUE
