import math
import pickle
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaito_runtime.ranks.messages import decode, decode_message, encode

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_sent_arrives(value: Any) -> None:
    assert decode(encode(value)) == value
    assert decode(encode(value).ljust(10_000)) == value, "padded, as replies are"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_arrive_to_the_last_bit(value: float) -> None:
    assert struct.pack("d", decode(encode(value))) == struct.pack("d", value)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), math.inf, math.nan])
def test_nothing_else_is_sent(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode(["name", value])


class Payload:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a message was unpickled",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_not_read(protocol: int) -> None:
    for value in (Payload(), ("end",)):
        with pytest.raises(ValueError, match="a message between ranks is not JSON"):
            decode_message(pickle.dumps(value, protocol=protocol))


@pytest.mark.parametrize("content", [b"{}", b"[]", b"3", b"[1]", b'"end"', b"null", b"[[]]"])
def test_a_message_has_a_name(content: bytes) -> None:
    with pytest.raises(ValueError, match="has no name"):
        decode_message(content)
