"""The wording of faults in documents: the field's path, what is wrong, and the value, cut where it is long."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticCustomError

__all__ = ["clipped", "describe", "fault", "field_path", "shown"]

_LONGEST_SHOWN = 80  # characters of a value in a message


def fault(message: str) -> PydanticCustomError:
    """Returns the error for a validator to raise; unlike a ValueError, pydantic does not prefix it "Value error, "."""
    return PydanticCustomError("kaito", "{message}", {"message": message})


def clipped(text: str) -> str:
    """Returns text for a message, cut where it is long."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def shown(value: object) -> str:
    """Returns a value for a message: its repr, cut where it is long; of a mapping or list only what it is."""
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
    """Returns the path of a field as Kubernetes writes it: `a.b[0].c`, and keys that are not names in brackets."""
    path = ""
    for part in location:
        if part == "[key]":  # pydantic's mark of a fault in the key itself
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
    """Returns the message of one of pydantic's errors in the wording of Kubernetes, with the value."""
    kind, value = error["type"], error["input"]
    if kind in ("kaito", "missing", "extra_forbidden", "invalid_key"):
        return _PHRASES.get(kind, str(error["msg"]))
    if kind in ("too_long", "too_short"):
        bound, limit = ("at most", "max_length") if kind == "too_long" else ("at least", "min_length")
        count = error["ctx"][limit]
        return f"must have {bound} {count} {'entry' if count == 1 else 'entries'}, got {len(value)}"
    text = str(error["msg"])
    text = f"{text[:1].lower()}{text[1:]}".replace("input should", "must").replace("string should", "must")
    phrase = _PHRASES.get(kind, text)
    if error["loc"] and error["loc"][-1] == "[key]":
        phrase = f"has a key that {phrase}"
    return f"{phrase}, got {shown(value)}"
