"""The serving configuration: what the operator writes is what the runtime reads."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kaito_core.api import ServedAdapter, ServedBlend, ServedModel, ServingConfig

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
STRENGTHS = st.floats(min_value=-10, max_value=10)


@st.composite
def configs(draw: st.DrawFn) -> ServingConfig:
    names = draw(st.lists(NAMES.filter(lambda name: name != "base"), min_size=1, max_size=6, unique=True))
    model, *others = names
    split = draw(st.integers(0, len(others)))
    adapters, blends = others[:split], others[split:]
    mixes = st.dictionaries(st.sampled_from(adapters), STRENGTHS) if adapters else st.just({})
    return ServingConfig(
        generation=draw(st.integers(0, 2**62)),
        model=ServedModel(name=model),
        adapters=tuple(ServedAdapter(name=name, strength=draw(STRENGTHS)) for name in adapters),
        blends=tuple(ServedBlend(name=name, strengths=draw(mixes)) for name in blends),
    )


@given(configs())
def test_round_trip(config: ServingConfig) -> None:
    text = config.to_json()
    again = ServingConfig.model_validate_json(text)
    assert again == config
    assert again.to_json() == text


def test_the_file_has_the_names_of_the_kubernetes_api() -> None:
    config = ServingConfig(
        generation=3, model=ServedModel(name="m", context_length=64), adapters=(ServedAdapter(name="a", strength=0.2),)
    )
    assert json.loads(config.to_json()) == {
        "schemaVersion": 1,
        "generation": 3,
        "model": {"name": "m", "recipe": "default", "dtype": "auto", "quantization": "auto", "contextLength": 64},
        "adapters": [{"name": "a", "strength": 0.2}],
        "blends": [],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schemaVersion": 2}, "Input should be 1"),
        ({"generation": -1}, "greater than or equal to 0"),
        ({"model": {"name": ""}}, "at least 1 character"),
        ({"model": {"name": "m", "dtype": "int8"}}, "'auto', 'bfloat16', 'float16' or 'float32'"),
        ({"adapters": [{"name": "a", "strength": "NaN"}]}, "must be a finite number, got 'NaN'"),
        ({"adapters": [{"name": "a", "strength": 11}]}, "must be between -10 and 10, got 11"),
        ({"adapters": [{"name": "a"}, {"name": "a"}]}, "duplicate model ids: a"),
        ({"adapters": [{"name": "base"}]}, "duplicate model ids: base"),
        ({"adapters": [{"name": "m"}]}, "duplicate model ids: m"),
        ({"blends": [{"name": "b", "strengths": {"x": 1}}]}, "blend 'b' names unknown adapters: x"),
        ({"surprise": 1}, "Extra inputs are not permitted"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ServingConfig.model_validate({"model": {"name": "m"}, **changes})
    assert message in str(caught.value)
