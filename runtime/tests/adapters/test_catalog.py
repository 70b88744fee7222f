from typing import Any

import pytest

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.catalog import AdapterState, Catalog, ServedVersion
from kaito_runtime.errors import RequestError

CONFIG = ServingConfig.model_validate(
    {
        "model": {"name": "smol"},
        "adapters": [{"name": "a", "strength": "0.8"}, {"name": "b", "strength": 0.5}, {"name": "off", "strength": 0}],
        "blends": [{"name": "both", "strengths": {"a": 1, "b": -1}}],
    }
)


def ready(name: str) -> ServedVersion:
    return ServedVersion(AdapterState.READY, f"version of {name}")  # type: ignore[arg-type]


def catalog(**changes: ServedVersion) -> Catalog:
    return Catalog(CONFIG, {name: ready(name) for name in ("a", "b", "off")} | changes)


FAILED = ServedVersion(AdapterState.FAILED, message="no adapter_config.json")


@pytest.mark.parametrize(
    ("model", "strengths"),
    [
        ("smol", {"version of a": 0.8, "version of b": 0.5}),
        ("base", {}),
        ("a", {"version of a": 0.8}),
        ("off", {}),
        ("both", {"version of a": 1.0, "version of b": -1.0}),
    ],
)
def test_model_ids_stand_for_their_strengths(model: str, strengths: dict[str, float]) -> None:
    assert catalog().strengths(model, None) == strengths


@pytest.mark.parametrize("model", ["smol", "base", "a", "both"])
def test_override_replaces_the_set_of_any_model_id(model: str) -> None:
    assert catalog().strengths(model, []) == {}
    assert catalog().strengths(model, [{"name": "b", "strength": 2}]) == {"version of b": 2.0}
    assert catalog().strengths(model, [{"name": "a"}, {"name": "b", "strength": "0"}]) == {"version of a": 0.8}


@pytest.mark.parametrize(
    ("override", "status", "param", "message"),
    [
        ({"name": "a", "strength": "abc"}, 400, "adapters[0].strength", "must be a finite number, got 'abc'"),
        ({"name": "a", "strength": 11}, 400, "adapters[0].strength", "between -10 and 10"),
        ({"name": "a", "strength": None}, 400, "adapters[0].strength", "must be a number"),
        ({"name": "c"}, 404, "adapters[0].name", "there is no adapter 'c', known: a, b, off"),
        ({"strength": 1}, 400, "adapters[0]", "must be"),
        ("a", 400, "adapters[0]", "must be"),
        ({"name": "a", "weight": 1}, 400, "adapters[0]", "unknown fields: weight"),
    ],
)
def test_bad_override_names_its_field(override: Any, status: int, param: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        catalog().strengths("smol", [override])
    assert (caught.value.status, caught.value.param) == (status, param)
    assert message in str(caught.value)


def test_adapter_named_twice_is_refused() -> None:
    with pytest.raises(RequestError, match=r"adapters\[1\].name: 'a' stands there twice"):
        catalog().strengths("smol", [{"name": "a"}, {"name": "a"}])


def test_unknown_model_is_404_with_the_known_ones_even_with_an_override() -> None:
    for override in (None, [], [{"name": "a"}]):
        with pytest.raises(RequestError, match="known: smol, base, a, b, off, both") as caught:
            catalog().strengths("missing", override)
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")


@pytest.mark.parametrize("model", ["smol", "a", "both"])
def test_failed_adapter_is_404_with_its_reason_wherever_it_is_needed(model: str) -> None:
    with pytest.raises(RequestError, match=r"'a'.* has failed and is not served: no adapter_config.json") as caught:
        catalog(a=FAILED).strengths(model, None)
    assert caught.value.status == 404
    with pytest.raises(RequestError, match=r"no adapter_config.json"):
        catalog(a=FAILED).strengths("base", [{"name": "a", "strength": 0}])


def test_failed_adapter_takes_only_its_own_model_ids_away() -> None:
    cards = [card.id for card in catalog(a=FAILED).servable()]
    assert cards == ["base", "b", "off"]
    assert catalog(a=FAILED).strengths("a", []) == {}
    assert catalog(a=FAILED).strengths("b", None) == {"version of b": 0.5}


def test_failed_adapter_of_strength_zero_does_not_take_the_mix_away() -> None:
    assert [card.id for card in catalog(off=FAILED).servable()] == ["smol", "base", "a", "b", "both"]


def test_adapter_that_is_still_loading_is_503() -> None:
    with pytest.raises(RequestError, match="is being loaded") as caught:
        Catalog(CONFIG).strengths("a", None)
    assert caught.value.status == 503
    assert caught.value.retry_after_seconds


def test_cards_say_what_they_are_made_of() -> None:
    cards = {card.id: card for card in catalog().cards()}
    assert cards["base"].parent is None
    assert {card.parent for name, card in cards.items() if name != "base"} == {"base"}
    assert {card.root for card in cards.values()} == {"smol"}
    assert cards["smol"].strengths == {"a": 0.8, "b": 0.5, "off": 0.0}
