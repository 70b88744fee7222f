"""How faults of documents are worded: where, what, and the value, never longer than a person reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticCustomError

__all__ = ["clipped", "describe", "fault", "field_path", "shown"]

_LONGEST_SHOWN = 80  # characters of a value in a message


def fault(message: str) -> PydanticCustomError:
    """Returns the error of a validator. pydantic puts "Value error, " before a ValueError's text; this stands alone."""
    return PydanticCustomError("kaito", "{message}", {"message": message})


def clipped(text: str) -> str:
    """Returns text for a message, cut where it is long."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def shown(value: object) -> str:
    """Returns a value for a message: as Python writes it, cut where it is long, and only the kind of what has parts."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    try:
        return clipped(repr(value))
    except ValueError:  # an int of more digits than Python writes
        return "a number of thousands of digits"


def field_path(location: Sequence[int | str]) -> str:
    """Returns a place in a document as Kubernetes writes it: `a.b[0].c`, keys of maps in brackets."""
    path = ""
    for part in location:
        if part == "[key]":  # pydantic's mark for "the key, not the value"
            continue
        if isinstance(part, str) and part.isidentifier():
            path += f".{part}" if path else part
        else:
            path += f"[{part if isinstance(part, int) else clipped(part)}]"
    return path


_PHRASES = {
    "missing": "is required",
    "extra_forbidden": "is not a field of a Workspace; check the spelling or remove it",
    "invalid_key": "is not a field of a Workspace: names are strings",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "string_unicode": "must be text",
}


def describe(error: Mapping[str, Any]) -> str:
    """Returns what one of pydantic's errors says, in our words and with the value."""
    kind, value = error["type"], error["input"]
    if kind in ("kaito", "missing", "extra_forbidden", "invalid_key"):
        return _PHRASES.get(kind, str(error["msg"]))
    if kind in ("too_long", "too_short"):
        limit = (
            f"at most {error['ctx']['max_length']}" if kind == "too_long" else f"at least {error['ctx']['min_length']}"
        )
        return f"must have {limit} {'entry' if limit.endswith(' 1') else 'entries'}, got {len(value)}"
    text = str(error["msg"])
    text = f"{text[:1].lower()}{text[1:]}".replace("input should", "must").replace("string should", "must")
    phrase = _PHRASES.get(kind, text)
    if error["loc"] and error["loc"][-1] == "[key]":
        phrase = f"has a key that {phrase}"
    return f"{phrase}, got {shown(value)}"
