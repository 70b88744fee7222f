"""The words that several errors share."""

import pytest

from kaito_core.errors import UnknownPresetError, known_names


@pytest.mark.parametrize(
    ("names", "wanted", "words"),
    [
        (("b", "a"), "", "known: a, b"),
        (("falcon-7b", "phi-4"), "falcon7b", "did you mean falcon-7b?"),
        (("falcon-7b", "phi-4"), "gemma", "known: falcon-7b, phi-4"),
        ((), "falcon-7b", "none is installed"),
    ],
)
def test_known_names_suggest_the_closest(names: tuple[str, ...], wanted: str, words: str) -> None:
    assert known_names(names, wanted) == words


def test_for_an_unknown_preset_a_similar_one_is_suggested() -> None:
    error = UnknownPresetError("smolm2-135m", ["falcon-7b", "smollm2-135m-instruct"])
    assert "(did you mean smollm2-135m-instruct?)" in str(error)
