from typing import Any

import pytest

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.catalog import AdapterState, AdapterStatus, Catalog
from kaito_runtime.errors import RequestError

CONFIG = ServingConfig.model_validate(
    {
        "model": {"name": "smol"},
        "adapters": [{"name": "a", "strength": "0.8"}, {"name": "b", "strength": 0.5}, {"name": "off", "strength": 0}],
        "blends": [{"name": "both", "strengths": {"a": 1, "b": -1}}],
    }
)


def ready(name: str) -> AdapterStatus:
    return AdapterStatus(AdapterState.READY, f"version of {name}")  # type: ignore[arg-type]


def catalog(**changes: AdapterStatus) -> Catalog:
    return Catalog(CONFIG, {name: ready(name) for name in ("a", "b", "off")} | changes)


FAILED = AdapterStatus(AdapterState.FAILED, message="no adapter_config.json")


def strengths(model: str, overrides: Any, **changes: AdapterStatus) -> dict[Any, float]:
    """Returns versions and strengths of a request."""
    return dict(catalog(**changes).choose(model, overrides).strengths)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("smol", {"version of a": 0.8, "version of b": 0.5}),
        ("base", {}),
        ("a", {"version of a": 0.8}),
        ("off", {}),
        ("both", {"version of a": 1.0, "version of b": -1.0}),
    ],
)
def test_model_ids_stand_for_their_strengths(model: str, expected: dict[str, float]) -> None:
    assert strengths(model, None) == expected


@pytest.mark.parametrize("model", ["smol", "base", "a", "both"])
def test_override_replaces_the_set_of_any_model_id(model: str) -> None:
    assert strengths(model, []) == {}
    assert strengths(model, [("b", 2.0)]) == {"version of b": 2.0}
    assert strengths(model, [("a", None), ("b", 0.0)]) == {"version of a": 0.8}


def test_unknown_adapter_is_404_with_the_known_ones() -> None:
    with pytest.raises(RequestError, match=r"adapters\[1\].name: unknown adapter 'c', known: a, b, off") as caught:
        catalog().choose("smol", [("a", 1.0), ("c", 1.0)])
    assert (caught.value.status, caught.value.param) == (404, "adapters[1].name")


def test_adapter_named_twice_is_refused() -> None:
    with pytest.raises(RequestError, match=r"adapters\[1\].name: duplicate adapter 'a'") as caught:
        catalog().choose("smol", [("a", None), ("a", 1.0)])
    assert (caught.value.status, caught.value.param) == (400, "adapters[1].name")


def test_unknown_model_is_404_with_the_known_ones_even_with_an_override() -> None:
    for override in (None, [], [("a", None)]):
        with pytest.raises(RequestError, match="unknown model 'missing', known: smol, base, a, b, off, both") as caught:
            catalog().choose("missing", override)
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")


@pytest.mark.parametrize("overrides", [None, [("a", None)], [("a", 0.0)]])
def test_failed_adapter_is_404_with_its_reason_by_its_name(overrides: Any) -> None:
    with pytest.raises(RequestError, match=r"adapter 'a' failed to load: no adapter_config.json") as caught:
        catalog(a=FAILED).choose("a", overrides)
    assert (caught.value.status, caught.value.code) == (404, "adapter_failed")


@pytest.mark.parametrize("model", ["smol", "both"])
def test_mix_with_a_failed_adapter_is_503_with_its_reason_since_it_comes_back(model: str) -> None:
    loading = AdapterStatus(message="waiting for the files")
    with pytest.raises(RequestError, match=rf"'b' of model '{model}' failed to load: no adapter_config.json") as caught:
        catalog(a=loading, b=FAILED).choose(model, None)
    assert (caught.value.status, caught.value.code) == (503, "adapter_failed")
    assert strengths(model, None)


def test_failed_adapter_takes_only_its_own_model_ids_away() -> None:
    cards = [card.id for card in catalog(a=FAILED).servable()]
    assert cards == ["base", "b", "off"]
    assert strengths("a", [], a=FAILED) == {}
    assert strengths("b", None, a=FAILED) == {"version of b": 0.5}


def test_failed_adapter_of_strength_zero_does_not_take_the_mix_away() -> None:
    assert [card.id for card in catalog(off=FAILED).servable()] == ["smol", "base", "a", "b", "both"]


def test_adapter_that_is_still_loading_is_503() -> None:
    with pytest.raises(RequestError, match="is being loaded") as caught:
        Catalog(CONFIG).choose("a", None)
    assert caught.value.status == 503
    assert caught.value.retry_after_seconds


def test_cards_say_what_they_are_made_of() -> None:
    cards = {card.id: card for card in catalog().cards}
    assert cards["base"].parent is None
    assert {card.parent for name, card in cards.items() if name != "base"} == {"base"}
    assert {card.root for card in cards.values()} == {"smol"}
    assert cards["smol"].strengths == {"a": 0.8, "b": 0.5, "off": 0.0}
