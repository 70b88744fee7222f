from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaito_runtime.openai.text import StopStrings, TextStream


def decode(tokens: Sequence[int]) -> str:
    """A tokenizer with one token per byte."""
    return bytes(tokens).decode(errors="replace")


@given(st.text())
def test_pieces_add_up_to_the_text(text: str) -> None:
    stream = TextStream(decode)
    pieces = [stream.push(token) for token in text.encode()]
    assert "".join([*pieces, stream.flush()]) == text


@given(st.lists(st.integers(0, 255)))
def test_bytes_that_are_not_text_come_out_as_the_decoder_shows_them(tokens: list[int]) -> None:
    stream = TextStream(lambda some: bytes(some).decode("latin-1"))
    assert "".join([*(stream.push(token) for token in tokens), stream.flush()]) == bytes(tokens).decode("latin-1")


def test_character_of_several_tokens_is_held_back() -> None:
    stream = TextStream(decode)
    assert [stream.push(token) for token in "aé€".encode()] == ["a", "", "é", "", "", "€"]


def test_incomplete_character_at_the_end_is_shown_as_such() -> None:
    stream = TextStream(decode)
    assert stream.push(0xE2) == ""
    assert stream.flush() == "\ufffd"


def test_words_keep_the_spaces_that_the_decoder_puts_between_them() -> None:
    stream = TextStream(lambda tokens: " ".join(f"w{token}" for token in tokens))
    assert "".join(stream.push(token) for token in range(30)) == " ".join(f"w{token}" for token in range(30))


def test_hardly_any_text_is_decoded_twice() -> None:
    asked = []
    stream = TextStream(lambda tokens: asked.append(tokens) or decode(tokens))
    for token in b"a" * 80:
        stream.push(token)
    assert len(asked) <= 80 + 80 / 8
    assert max(map(len, asked)) < 12


def cut(text: str, stops: list[str]) -> str:
    found = [text.index(stop) for stop in stops if stop in text]
    return text[: min(found)] if found else text


@given(st.lists(st.text("ab", max_size=4)), st.lists(st.text("ab", max_size=3), max_size=3))
def test_text_ends_before_the_first_stop_string_however_it_is_cut(pieces: list[str], stops: list[str]) -> None:
    matcher = StopStrings(stops)
    shown = "".join([*(matcher.push(piece) for piece in pieces), *([] if matcher.found else [matcher.flush()])])
    wanted = [stop for stop in stops if stop]
    # A longer stop string may begin before a shorter one that is complete earlier: the shorter one wins then.
    text = "".join(pieces)
    assert text.startswith(shown)
    assert matcher.found == any(stop in text for stop in wanted)
    assert not any(stop in shown for stop in wanted)
    if len(wanted) == 1:
        assert shown == cut(text, wanted)


def test_beginning_of_a_stop_string_is_held_back_until_it_is_none() -> None:
    matcher = StopStrings(["END"])
    assert [matcher.push(piece) for piece in ("a", "E", "N", "x", "EN")] == ["a", "", "", "ENx", ""]
    assert matcher.flush() == "EN"


@pytest.mark.parametrize("stops", [[], [""]])
def test_nothing_is_held_back_without_stop_strings(stops: list[str]) -> None:
    assert StopStrings(stops).push("abc") == "abc"
