"""The prediction's own arithmetic, and that the dispatch table agrees with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roofline import A100, DEVICES, H100, Layer, chosen, main, overhead, predicted_us, rivals_us

from kaito_runtime.kernels.dispatch import Path
from kaito_runtime.kernels.launch import PAGE

PATHS = (Path.PAIR, Path.ADD)
layers = st.builds(
    Layer,
    tokens=st.integers(1, 8192),
    n=st.sampled_from([576, 4096, 14336]),
    k=st.sampled_from([576, 4096, 14336]),
    ranks=st.integers(1, 16).map(lambda pages: pages * PAGE),
)


@pytest.mark.parametrize(("tokens", "us"), [(1, 13.3), (2048, 100.7)])
def test_the_base_product_by_hand(tokens, us):
    """One token streams 4096^2 * 2 bytes at 0.85 * 3.35 TB/s; 2048 tokens compute 2 * 2048 * 4096^2 at 693 TFLOP/s."""
    assert predicted_us(H100, Path.BASE, Layer(tokens, 4096, 4096, 64)) == pytest.approx(us, abs=0.1)


@given(layers)
def test_adapters_are_never_free_and_more_cost_more(layer):
    more = Layer(layer.tokens, layer.n, layer.k, layer.ranks + PAGE)
    for device in DEVICES:
        for path in PATHS:
            assert overhead(device, path, layer) > 0
            assert predicted_us(device, path, more) >= predicted_us(device, path, layer)


@given(layers.filter(lambda layer: layer.tokens <= 16 and layer.ranks <= 64))
def test_decode_beats_three_launches_and_loops_on_h100(layer):
    ours = predicted_us(H100, Path.PAIR, layer)
    assert all(ours < other for other in rivals_us(H100, layer, 4).values())


def test_dependent_launch_is_worth_something():
    layer = Layer(1, 4096, 4096, 64)
    assert overhead(H100, Path.PAIR, layer) < 0.06 < overhead(A100, Path.PAIR, layer)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
@pytest.mark.parametrize("tokens", [1, 16, 64, 128, 512, 1024, 2048, 8192])
@pytest.mark.parametrize("ranks", [16, 64, 128])
def test_the_dispatch_takes_what_is_predicted_to_be_fastest(device, tokens, ranks):
    layer = Layer(tokens, 4096, 4096, ranks)
    fastest = min(predicted_us(device, path, layer) for path in PATHS)
    assert predicted_us(device, chosen(device, layer, all_live=True), layer) <= 1.05 * fastest


def test_what_is_printed_says_what_it_is(capsys):
    main()
    printed = capsys.readouterr().out
    assert "predicted, not measured" in printed
    assert "H100" in printed and "A100" in printed and printed.count("PAIR") > 12
