"""How a message between ranks is written: as JSON, so that reading one never runs code, as reading a pickle would.

What each message means is in `lead` and `follow`; how it travels is in `group`.
"""

import json
from typing import Any

__all__ = ["decode", "decode_message", "encode"]


def encode(value: object) -> bytes:
    """Returns the bytes of numbers, texts, lists and dicts. Floats are exact: JSON has their shortest unique decimals.

    Raises:
        TypeError: There is something else in it.
        ValueError: A float is not finite.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def decode(content: bytes) -> Any:
    """Returns what was given to `encode`, with lists for its tuples.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a message between ranks is not JSON: {content[:20]!r}...") from error


def decode_message(content: bytes) -> list[Any]:
    """Returns the name and the arguments of a message.

    Raises:
        ValueError: It is not a message.
    """
    message = decode(content)
    if not isinstance(message, list) or not message or not isinstance(message[0], str):
        raise ValueError(f"a message between ranks has no name: {content[:20]!r}...")
    return message
